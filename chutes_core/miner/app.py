"""Runs the miner: starts what parts.py has built, keeps its loops, and ends it cleanly.

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
from chutes_core.chain.keys import load_neuron_keys
from chutes_core.miner.cache.opening import open_folders
from chutes_core.miner.chain_view import Chain
from chutes_core.miner.checks import check_chain
from chutes_core.miner.host import DataDir, raise_open_files
from chutes_core.miner.hosting import check_platform, gpu_count, make_hosting
from chutes_core.miner.parts import Ground, build
from chutes_core.miner.reasons import DEREGISTERED, MINER_ENDED
from chutes_core.miner.settings import MinerSettings
from chutes_core.miner.store import MinerStore
from chutes_core.miner.validator_api import HttpValidatorApi

EXIT_OK = 0
EXIT_DEREGISTERED = 3
_DRAIN_S = 6.0
_CLOSE_S = 1.5
_WATCH_S = 2.0
_HEALTH_S = 10.0
_HOUSEKEEPING_S = 60.0
_CACHE_S = 10.0
_SPACING_S = 0.1
"""The least time between two rounds, whatever wakes them."""
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
            gpus=await asyncio.to_thread(gpu_count, settings),
        )
        stack.push_async_callback(hosting.close)
        folders = await asyncio.to_thread(open_folders, settings)
        stack.callback(folders.close)
        ground = Ground(settings, keys, chain, data, store, api, hosting, folders)
        return await Miner(ground).run()


class Miner:
    """One miner process, from its start to its end."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._settings = ground.settings
        self._clock = SystemClock()
        self._stop = asyncio.Event()
        self._exit_code = EXIT_OK
        self._loops = Loops()
        self._parts = build(ground, self._loops, self._clock)

    async def run(self) -> int:
        """Start, work, and end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        await self._parts.relay.start(self._parts.sockets.relay)
        await self._parts.operator.start()
        await self._parts.cache.begin()
        await self._parts.deployer.adopt()
        try:
            await self._await_registration()
            await self._parts.server.start()
            await self._work()
        finally:
            await self._end()
        return self._exit_code

    async def _await_registration(self) -> None:
        await self._parts.view.refresh()
        said = False
        while not self._parts.view.registered and not self._stop.is_set():
            error = self._not_registered()
            if not self._settings.wait_registered:
                self._exit_code = EXIT_DEREGISTERED  # what a former process left running ends
                raise error
            if not said:
                said = True
                logger.bind(code=error.code).warning("waiting for registration: {}", error)
            await _wait(self._stop, self._settings.poll_seconds)
            try:
                await self._parts.view.refresh()
            except Unavailable as error:
                logger.bind(code=error.code).warning("chain was not read: {}", error)

    def _not_registered(self) -> Forbidden:
        settings = self._settings
        return Forbidden(
            "not_registered",
            f"hotkey {self._ground.keys.hotkey_ss58} is not registered on subnet {settings.netuid}",
            hint="where the coldkey is: python scripts/register.py"
            f" --network {settings.chain_url} --netuid {settings.netuid}"
            f" --wallet-name {settings.wallet_name} --hotkey {settings.hotkey}",
        )

    async def _work(self) -> None:
        if self._stop.is_set():
            return
        port = self._parts.port
        if await self._parts.view.announce(self._ground.keys.hotkey, self._parts.ip, port):
            logger.bind(ip=self._parts.ip, port=port).info("axon was announced")
        self._say_ready(port)
        poll_s = self._settings.poll_seconds
        self._loops.every(poll_s, "chain", self._follow_chain)
        self._parts.deployer.books.news.set()  # the first round waits for none
        self._loops.every(_SPACING_S, "work", self._round)
        self._loops.every(_SPACING_S, "wakes", self._parts.wakes.listen)
        self._loops.every(min(poll_s, _WATCH_S), "watch", self._watch)
        self._loops.every(_WATCH_S, "stand-bys", self._parts.stand_bys.keep)
        self._loops.every(_HEALTH_S, "health", self._look_at_health)
        self._loops.every(_CACHE_S, "model cache", self._parts.cache.look)
        self._loops.every(_HEALTH_S, "attempts", self._look_at_attempts)
        self._loops.every(_HOUSEKEEPING_S, "housekeeping", self._housekeeping)
        try:
            await self._stop.wait()
        finally:
            await self._loops.close()

    def _say_ready(self, port: int) -> None:
        facts = {
            "hotkey": self._ground.keys.hotkey_ss58,
            "axon": f"{self._parts.ip}:{port}",
            "port": self._parts.sockets.http.getsockname()[1],
            "relay_port": self._parts.node.relay_port,
            "operator_port": self._parts.sockets.operator.getsockname()[1],
            "gpus": [gpu.uuid for gpu in self._parts.node.gpus],
            "pid": os.getpid(),
        }
        logger.bind(**facts).info("miner started")
        if self._settings.ready_file is not None:
            temporary = self._settings.ready_file.with_suffix(".tmp")
            temporary.write_text(json.dumps(facts))
            temporary.replace(self._settings.ready_file)

    async def _follow_chain(self) -> None:
        await self._parts.view.refresh()
        if not self._parts.view.registered:
            logger.bind(code=DEREGISTERED).error("hotkey lost its registration; the miner ends")
            self._exit_code = EXIT_DEREGISTERED
            self._stop.set()

    async def _round(self) -> None:
        """Wait until a round has something to do, or it is time, and work for one.

        In this order: whoever brings news while the loop rests after a round is waited for no more.
        """
        parts = self._parts
        await parts.deployer.books.news.wait(self._settings.poll_seconds)
        await parts.scheduler.learn(await parts.directory.refresh(parts.view.seen))
        await parts.scheduler.tick()

    async def _watch(self) -> None:
        await self._parts.deployer.watch(self._parts.directory.validators)

    async def _housekeeping(self) -> None:
        self._ground.store.forget_nonces(now_s=self._clock.now_s())

    async def _look_at_health(self) -> None:
        busy = frozenset(
            gpu for run in self._parts.deployer.running() for gpu in (*run.gpu_uuids, *run.beside)
        )
        await asyncio.to_thread(self._parts.health.look, busy)

    async def _look_at_attempts(self) -> None:
        await asyncio.to_thread(self._parts.attempts.look)

    async def _end(self) -> None:
        """Let calls end, tell validators, stop instances, close; bounded by `drain_seconds` + 10 s.

        After an error that nobody asked for, instances stay: the next start adopts them.
        """
        await self._parts.stand_bys.end()
        lost = self._exit_code == EXIT_DEREGISTERED
        if lost or self._stop.is_set():
            await self._drain(DEREGISTERED if lost else MINER_ENDED)
        await self._parts.relay.close()
        await self._parts.server.close()
        await self._parts.operator.close()
        self._parts.kernel.close()
        logger.info("miner ended")

    async def _drain(self, reason: str) -> None:
        within_s = self._settings.drain_seconds
        try:
            await asyncio.wait_for(
                self._parts.deployer.leave(reason, within_s=within_s), within_s + 1
            )
        except asyncio.TimeoutError:
            logger.bind(code="calls_cut").warning("calls did not end within {} s", within_s)
        try:
            await asyncio.wait_for(self._parts.deployer.drain(reason), _DRAIN_S)
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
