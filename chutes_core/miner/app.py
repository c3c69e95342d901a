"""Constructs and wires the miner, runs its loops, and ends it cleanly.

`run` returns an exit code: 0 after SIGTERM or SIGINT, 3 when the hotkey lost its registration;
refusals to start are raised as ChutesError, which neurons/miner.py turns into exit code 2.
"""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

from loguru import logger

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import Forbidden, Unavailable
from chutes_core.base.loops import Loops
from chutes_core.chain.client import ChainClient
from chutes_core.chain.keys import NeuronKeys, load_neuron_keys
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.chain_view import CallerPolicy, Chain, ChainView
from chutes_core.miner.checks import axon_ip, check_bundle, check_chain
from chutes_core.miner.deployer import Deployer
from chutes_core.miner.desk import Desk
from chutes_core.miner.discovery import Directory, ServePolicy
from chutes_core.miner.gpus import read_devices
from chutes_core.miner.health import HealthWatch, KernelLog, read_vitals
from chutes_core.miner.host import DataDir, raise_open_files
from chutes_core.miner.hosting import Hosting, check_platform, make_hosting
from chutes_core.miner.inventory import Node, find_gpus, node_id, software_version
from chutes_core.miner.launcher import Launcher
from chutes_core.miner.leases import LeaseBook
from chutes_core.miner.operator_http import build_operator_http, operator_token
from chutes_core.miner.reasons import DEREGISTERED, MINER_ENDED
from chutes_core.miner.relay import Relay
from chutes_core.miner.scheduler import Scheduler
from chutes_core.miner.server import OPERATOR_LIMITS, HttpServer, build_http
from chutes_core.miner.settings import MinerSettings
from chutes_core.miner.store import MinerStore
from chutes_core.miner.validator_api import HttpValidatorApi
from chutes_core.wire.control import Handshake

EXIT_OK = 0
EXIT_DEREGISTERED = 3
_DRAIN_S = 6.0
_CLOSE_S = 1.5
_WATCH_S = 2.0
_HEALTH_S = 10.0
_HOUSEKEEPING_S = 60.0
Connect = Callable[[str, int], Chain]


async def run(settings: MinerSettings, *, connect: Connect = ChainClient.connect) -> int:
    """Run the miner until a signal or the loss of its registration; return the exit code.

    Raises:
        ChutesError: it refuses to start; the code says why.
    """
    check_platform(settings)
    raise_open_files()
    keys = load_neuron_keys(
        settings.wallet_dir,
        settings.wallet_name,
        settings.hotkey,
        allow_coldkey=settings.allow_coldkey,
    )
    chain = await asyncio.to_thread(connect, settings.chain_url, settings.netuid)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_close_chain, chain)
        check_chain(settings, is_devnet=chain.is_devnet)
        data = DataDir(settings.data_path)
        stack.callback(data.close)
        store = MinerStore(data.path / "miner.sqlite3")
        stack.callback(store.close)
        api = await stack.enter_async_context(HttpValidatorApi(keys.hotkey))
        hosting = await make_hosting(
            settings,
            api,
            hotkey_ss58=keys.hotkey_ss58,
            is_devnet=chain.is_devnet,
            gpus=sum(declared.count for declared in settings.declared_gpus),
        )
        stack.push_async_callback(hosting.close)
        return await Miner(settings, keys, chain, data, store, api, hosting).run()


class Miner:
    """The wired parts of one miner process."""

    def __init__(
        self,
        settings: MinerSettings,
        keys: NeuronKeys,
        chain: Chain,
        data: DataDir,
        store: MinerStore,
        api: HttpValidatorApi,
        hosting: Hosting,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._chain = chain
        self._store = store
        self._data = data
        self._ip = axon_ip(settings, is_devnet=chain.is_devnet)
        self._clock = SystemClock()
        self._stop = asyncio.Event()
        self._exit_code = EXIT_OK
        self._loops = Loops()
        self._http_socket = data.listen("http", settings.host, settings.port)
        relay_socket = data.listen("relay", settings.host, settings.relay_port)
        self._relay_socket = relay_socket
        self._node = self._describe(relay_socket.getsockname()[1])
        self._view = ChainView(chain, hotkey_ss58=keys.hotkey_ss58)
        self._operator_socket = data.listen(
            "operator", settings.operator_host, settings.operator_port
        )
        self._relay = Relay()
        self._wire(api, hosting)

    def _describe(self, relay_port: int) -> Node:
        hotkey = self._keys.hotkey_ss58
        devices = () if self._settings.declared_gpus else read_devices()
        check_bundle(self._settings.graval_path, devices)
        return Node(
            hotkey_ss58=hotkey,
            node_id=node_id(hotkey),
            runtime=self._settings.runtime,
            relay_port=relay_port,
            gpus=find_gpus(hotkey, self._settings.declared_gpus, lambda: devices),
            hourly_cost_usd_micros=self._settings.hourly_cost_usd_micros,
            handshake=Handshake(version=software_version()),
        )

    def _wire(self, api: HttpValidatorApi, hosting: Hosting) -> None:
        settings, node = self._settings, self._node
        self._directory = Directory(
            api.well_known,
            policy=ServePolicy(settings.chosen_validators, settings.min_stake_rao),
            genesis_hash=self._chain.genesis_hash,
            netuid=self._chain.netuid,
            allow_private=self._chain.is_devnet,
            clock=self._clock,
        )
        runtime = hosting.runtime
        backoff = BackOff(self._clock)
        self._book = LeaseBook(self._keys.hotkey, self._store, lease_blocks=settings.lease_blocks)
        self._deployer = Deployer(
            launcher=Launcher(
                node=node,
                runtime=runtime,
                api=api,
                images=hosting.images,
                graval_python=settings.prover_python,
            ),
            runtime=runtime,
            relay=self._relay,
            store=self._store,
            api=api,
            backoff=backoff,
            lookup=self._directory.get,
            clock=self._clock,
        )
        self._kernel = KernelLog()
        self._attempts = hosting.attempts
        self._health = HealthWatch(node.gpus, read_vitals, self._kernel.xids)
        self._scheduler = Scheduler(
            gpus=node.gpus,
            view=self._view,
            directory=self._directory,
            book=self._book,
            runtime=runtime,
            deployer=self._deployer,
            backoff=backoff,
            api=api,
            # a container keeps the devices it was started with: idle ones must stay outside
            prove_beside=runtime.name == "process",
            unwell=self._health.unwell,
            min_run_s=settings.min_run_seconds,
            clock=self._clock,
        )
        desk = self._desk(hosting, backoff)
        policy = CallerPolicy(self._view, min_stake_rao=settings.min_stake_rao)
        http = build_http(
            keypair=self._keys.hotkey,
            nonces=self._store,
            authorise=policy.authorise,
            clock=self._clock,
            inventory=desk.inventory,
            log_of=self._deployer.log_of,
        )
        self._server = HttpServer(http, self._http_socket)
        operator = build_operator_http(operator_token(self._data.path), desk.status, self._clock)
        self._operator = HttpServer(operator, self._operator_socket, OPERATOR_LIMITS)

    def _desk(self, hosting: Hosting, backoff: BackOff) -> Desk:
        port = self._settings.external_port or self._http_socket.getsockname()[1]
        return Desk(
            node=self._node,
            axon=f"{self._ip}:{port}",
            data=self._data.path,
            view=self._view,
            directory=self._directory,
            book=self._book,
            scheduler=self._scheduler,
            deployer=self._deployer,
            backoff=backoff,
            relay=self._relay,
            health=self._health,
            meter=hosting.meter,
            attempts=hosting.attempts,
            loops=self._loops,
            clock=self._clock,
        )

    async def run(self) -> int:
        """Start, work, and end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        await self._relay.start(self._relay_socket)
        await self._operator.start()
        await self._deployer.adopt()
        try:
            await self._await_registration()
            await self._server.start()
            await self._work()
        finally:
            await self._end()
        return self._exit_code

    async def _await_registration(self) -> None:
        await self._view.refresh()
        said = False
        while not self._view.registered and not self._stop.is_set():
            error = self._not_registered()
            if not self._settings.wait_registered:
                self._exit_code = EXIT_DEREGISTERED  # what a former process left running ends
                raise error
            if not said:
                said = True
                logger.bind(code=error.code).warning("waiting for registration: {}", error)
            await _wait(self._stop, self._settings.poll_seconds)
            try:
                await self._view.refresh()
            except Unavailable as error:
                logger.bind(code=error.code).warning("chain was not read: {}", error)

    def _not_registered(self) -> Forbidden:
        settings = self._settings
        return Forbidden(
            "not_registered",
            f"hotkey {self._keys.hotkey_ss58} is not registered on subnet {settings.netuid}",
            hint="where the coldkey is: python scripts/register.py"
            f" --network {settings.chain_url} --netuid {settings.netuid}"
            f" --wallet-name {settings.wallet_name} --hotkey {settings.hotkey}",
        )

    async def _work(self) -> None:
        if self._stop.is_set():
            return
        port = self._settings.external_port or self._http_socket.getsockname()[1]
        if await self._view.announce(self._keys.hotkey, self._ip, port):
            logger.bind(ip=self._ip, port=port).info("axon was announced")
        self._say_ready(port)
        poll_s = self._settings.poll_seconds
        self._loops.every(poll_s, "chain", self._follow_chain)
        self._loops.every(poll_s, "work", self._round)
        self._loops.every(min(poll_s, _WATCH_S), "watch", self._watch)
        self._loops.every(_HEALTH_S, "health", self._look_at_health)
        self._loops.every(_HEALTH_S, "attempts", self._look_at_attempts)
        self._loops.every(_HOUSEKEEPING_S, "housekeeping", self._housekeeping)
        try:
            await self._stop.wait()
        finally:
            await self._loops.close()

    def _say_ready(self, port: int) -> None:
        facts = {
            "hotkey": self._keys.hotkey_ss58,
            "axon": f"{self._ip}:{port}",
            "port": self._http_socket.getsockname()[1],
            "relay_port": self._node.relay_port,
            "operator_port": self._operator_socket.getsockname()[1],
            "gpus": [gpu.uuid for gpu in self._node.gpus],
            "pid": os.getpid(),
        }
        logger.bind(**facts).info("miner started")
        if self._settings.ready_file is not None:
            temporary = self._settings.ready_file.with_suffix(".tmp")
            temporary.write_text(json.dumps(facts))
            temporary.replace(self._settings.ready_file)

    async def _follow_chain(self) -> None:
        await self._view.refresh()
        if not self._view.registered:
            logger.bind(code=DEREGISTERED).error("hotkey lost its registration; the miner ends")
            self._exit_code = EXIT_DEREGISTERED
            self._stop.set()

    async def _round(self) -> None:
        await self._scheduler.learn(await self._directory.refresh(self._view.seen))
        await self._scheduler.tick()

    async def _watch(self) -> None:
        await self._deployer.watch(self._directory.validators)

    async def _housekeeping(self) -> None:
        self._store.forget_nonces(now_s=self._clock.now_s())

    async def _look_at_health(self) -> None:
        busy = frozenset(
            gpu for run in self._deployer.running() for gpu in (*run.gpu_uuids, *run.beside)
        )
        await asyncio.to_thread(self._health.look, busy)

    async def _look_at_attempts(self) -> None:
        await asyncio.to_thread(self._attempts.look)

    async def _end(self) -> None:
        """Let calls end, tell validators, stop instances, close; bounded by `drain_seconds` + 10 s.

        After an error that nobody asked for, instances stay: the next start adopts them.
        """
        lost = self._exit_code == EXIT_DEREGISTERED
        if lost or self._stop.is_set():
            await self._drain(DEREGISTERED if lost else MINER_ENDED)
        await self._relay.close()
        await self._server.close()
        await self._operator.close()
        self._kernel.close()
        logger.info("miner ended")

    async def _drain(self, reason: str) -> None:
        within_s = self._settings.drain_seconds
        try:
            await asyncio.wait_for(self._deployer.leave(reason, within_s=within_s), within_s + 1)
        except asyncio.TimeoutError:
            logger.bind(code="calls_cut").warning("calls did not end within {} s", within_s)
        try:
            await asyncio.wait_for(self._deployer.drain(reason), _DRAIN_S)
        except asyncio.TimeoutError:
            logger.bind(code="drain_timeout").warning("not every validator heard of the end")


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except asyncio.TimeoutError:
        return


async def _close_chain(chain: Chain) -> None:
    """Close the client; a read that hangs in its thread must not hold up the end."""
    try:
        await asyncio.wait_for(asyncio.to_thread(chain.close), _CLOSE_S)
    except asyncio.TimeoutError:
        logger.bind(code="chain_close_timeout").warning("chain connection was left open")
