"""The miner's parts, constructed and wired. Nothing is decided here; app.py runs them.

Read it as the map of the process: what exists once, and who is given what. Invariant: sockets are
bound before anything is announced, and keep their ports over restarts (`DataDir.listen`).
"""

import socket
from dataclasses import dataclass

from chutes_core.base.clock import Clock, SystemClock
from chutes_core.base.loops import Loops
from chutes_core.chain.keys import NeuronKeys
from chutes_core.engine.run import CACHE
from chutes_core.miner.attempts import AttemptWatch
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.cache.folders import Folders
from chutes_core.miner.cache.hidden import hidden_bytes
from chutes_core.miner.cache.model_cache import ModelCache
from chutes_core.miner.cache.opening import bounds_of
from chutes_core.miner.chain_view import CallerPolicy, Chain, ChainView
from chutes_core.miner.checks import axon_ip, check_bundle
from chutes_core.miner.deployer import Deployer
from chutes_core.miner.desk import Desk
from chutes_core.miner.discovery import Directory, ServePolicy
from chutes_core.miner.gpus import read_devices
from chutes_core.miner.health import HealthWatch, KernelLog, read_vitals
from chutes_core.miner.host import DataDir
from chutes_core.miner.hosting import Hosting
from chutes_core.miner.inventory import Node, find_gpus, node_id, software_version
from chutes_core.miner.launcher import Launcher
from chutes_core.miner.leases import LeaseBook
from chutes_core.miner.operator_http import build_operator_http, operator_token
from chutes_core.miner.relay import Relay
from chutes_core.miner.scheduler import Scheduler
from chutes_core.miner.server import OPERATOR_LIMITS, HttpServer, build_http
from chutes_core.miner.settings import MinerSettings
from chutes_core.miner.standby import StandBys
from chutes_core.miner.store import MinerStore
from chutes_core.miner.validator_api import HttpValidatorApi
from chutes_core.miner.wakes import Wakes
from chutes_core.wire.control import Handshake


@dataclass(frozen=True)
class Ground:
    """What a miner is built on: opened before, closed after it."""

    settings: MinerSettings
    keys: NeuronKeys
    chain: Chain
    data: DataDir
    store: MinerStore
    api: HttpValidatorApi
    hosting: Hosting
    folders: Folders


@dataclass(frozen=True)
class Sockets:
    """What is bound: signed HTTP, the relay, the operator's page."""

    http: socket.socket
    relay: socket.socket
    operator: socket.socket


@dataclass(frozen=True)
class Parts:
    """Every part that lives as long as the process."""

    ip: str
    port: int
    sockets: Sockets
    node: Node
    view: ChainView
    directory: Directory
    relay: Relay
    book: LeaseBook
    deployer: Deployer
    scheduler: Scheduler
    wakes: Wakes
    stand_bys: StandBys
    cache: ModelCache
    kernel: KernelLog
    health: HealthWatch
    attempts: AttemptWatch
    server: HttpServer
    operator: HttpServer


def build(ground: Ground, loops: Loops, clock: Clock | None = None) -> Parts:
    """Construct every part and wire it to the others; nothing runs yet.

    Raises:
        ChutesError: a port is taken, no GPU is found, or the prover bundle does not fit.
    """
    clock = clock or SystemClock()
    settings, hosting = ground.settings, ground.hosting
    sockets = _bind(ground)
    node = _describe(ground, sockets.relay.getsockname()[1])
    view = ChainView(ground.chain, hotkey_ss58=ground.keys.hotkey_ss58)
    relay, backoff = Relay(), BackOff(clock)
    directory = _directory(ground, clock)
    book = LeaseBook(ground.keys.hotkey, ground.store, lease_blocks=settings.lease_blocks)
    stand_bys = StandBys(
        hosting.runtime,
        most=settings.stand_bys,
        graval_python=settings.prover_python,
        idle=lambda: 0 if deployer.draining else len(node.gpus) - deployer.books.taken(),
        clock=clock,
        binds_cache=hosting.runtime.name == "docker",
    )
    cache = ModelCache(
        ground.folders,
        bounds_of(settings, len(node.gpus)),
        in_use=lambda: deployer.books.using(),
        overran=lambda key, said: deployer.end_overrun(key, said),
        clock=clock,
        hidden=lambda files: hidden_bytes(files, CACHE) if settings.runtime == "docker" else 0,
        standing=stand_bys.folders,
        shun=stand_bys.shun,
    )
    deployer = _deployer(ground, node, relay, backoff, directory, clock, stand_bys, cache)
    kernel = KernelLog()
    health = HealthWatch(node.gpus, read_vitals, kernel.xids)
    scheduler = Scheduler(
        gpus=node.gpus,
        view=view,
        directory=directory,
        book=book,
        runtime=hosting.runtime,
        deployer=deployer,
        backoff=backoff,
        api=ground.api,
        # a container keeps the devices it was started with: idle ones must stay outside
        prove_beside=hosting.runtime.name == "process",
        unwell=health.unwell,
        warm_models=cache.warm,
        min_run_s=settings.min_run_seconds,
        clock=clock,
    )
    ip = axon_ip(settings, is_devnet=ground.chain.is_devnet)
    port = settings.external_port or sockets.http.getsockname()[1]
    desk = Desk(
        node=node,
        axon=f"{ip}:{port}",
        data=ground.data.path,
        view=view,
        directory=directory,
        book=book,
        scheduler=scheduler,
        deployer=deployer,
        backoff=backoff,
        relay=relay,
        health=health,
        meter=hosting.meter,
        attempts=hosting.attempts,
        pulls=hosting.pulls,
        cache=cache,
        loops=loops,
        clock=clock,
    )
    return Parts(
        ip=ip,
        port=port,
        sockets=sockets,
        node=node,
        view=view,
        directory=directory,
        relay=relay,
        book=book,
        deployer=deployer,
        scheduler=scheduler,
        wakes=Wakes(ground.api, lambda: directory.validators, deployer.books.news, clock=clock),
        stand_bys=stand_bys,
        cache=cache,
        kernel=kernel,
        health=health,
        attempts=hosting.attempts,
        server=_server(ground, sockets, view, desk, deployer, clock),
        operator=_operator(ground, sockets, desk, clock),
    )


def _bind(ground: Ground) -> Sockets:
    settings, data = ground.settings, ground.data
    return Sockets(
        http=data.listen("http", settings.host, settings.port),
        relay=data.listen("relay", settings.host, settings.relay_port),
        operator=data.listen("operator", settings.operator_host, settings.operator_port),
    )


def _describe(ground: Ground, relay_port: int) -> Node:
    settings, hotkey = ground.settings, ground.keys.hotkey_ss58
    devices = () if settings.declared_gpus else read_devices()
    check_bundle(settings.graval_path, devices)
    return Node(
        hotkey_ss58=hotkey,
        node_id=node_id(hotkey),
        runtime=settings.runtime,
        relay_port=relay_port,
        gpus=find_gpus(hotkey, settings.declared_gpus, lambda: devices),
        hourly_cost_usd_micros=settings.hourly_cost_usd_micros,
        handshake=Handshake(version=software_version()),
    )


def _directory(ground: Ground, clock: Clock) -> Directory:
    settings, chain = ground.settings, ground.chain
    return Directory(
        ground.api.well_known,
        policy=ServePolicy(settings.chosen_validators, settings.min_stake_rao),
        genesis_hash=chain.genesis_hash,
        netuid=chain.netuid,
        allow_private=chain.is_devnet,
        clock=clock,
    )


def _deployer(
    ground: Ground,
    node: Node,
    relay: Relay,
    backoff: BackOff,
    directory: Directory,
    clock: Clock,
    stand_bys: StandBys,
    cache: ModelCache,
) -> Deployer:
    hosting = ground.hosting
    launcher = Launcher(
        node=node,
        runtime=hosting.runtime,
        api=ground.api,
        images=hosting.images,
        graval_python=ground.settings.prover_python,
        started=stand_bys.note,
        cache=cache,
    )
    return Deployer(
        launcher=launcher,
        runtime=hosting.runtime,
        relay=relay,
        store=ground.store,
        api=ground.api,
        backoff=backoff,
        lookup=directory.get,
        clock=clock,
    )


def _server(
    ground: Ground,
    sockets: Sockets,
    view: ChainView,
    desk: Desk,
    deployer: Deployer,
    clock: Clock,
) -> HttpServer:
    policy = CallerPolicy(view, min_stake_rao=ground.settings.min_stake_rao)
    http = build_http(
        keypair=ground.keys.hotkey,
        nonces=ground.store,
        authorise=policy.authorise,
        clock=clock,
        inventory=desk.inventory,
        log_of=deployer.log_of,
    )
    return HttpServer(http, sockets.http)


def _operator(ground: Ground, sockets: Sockets, desk: Desk, clock: Clock) -> HttpServer:
    page = build_operator_http(operator_token(ground.data.path), desk.status, clock)
    return HttpServer(page, sockets.operator, OPERATOR_LIMITS)
