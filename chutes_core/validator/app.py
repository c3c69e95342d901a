"""The validator's parts, constructed and wired. Nothing is decided here; lifetime.py runs them.

Read it as the map of the process: what exists once, and who is given what.
"""

from dataclasses import dataclass

from fastapi import FastAPI

from chutes_core.base.clock import Clock
from chutes_core.base.failures import FailedTries
from chutes_core.base.version import VERSION
from chutes_core.chain.addresses import derive
from chutes_core.chain.client import ChainClient
from chutes_core.chain.keys import NeuronKeys
from chutes_core.chain.transfers import TransferWatcher
from chutes_core.engine.connect import connect
from chutes_core.validator.accounts.secrets import Secrets
from chutes_core.validator.accounts.service import Accounts
from chutes_core.validator.api.errors import install_errors
from chutes_core.validator.api.router import build_router
from chutes_core.validator.api.routes import discovery, miner, money, transfers
from chutes_core.validator.api.services import Services
from chutes_core.validator.attest.attestor import ProcessAttestor
from chutes_core.validator.billing.ledger import Ledger
from chutes_core.validator.billing.rates import Rates
from chutes_core.validator.billing.settle import Settlement
from chutes_core.validator.catalog.builder import Builder, ProcessRuntimeBuilder
from chutes_core.validator.catalog.chutes import Chutes, no_fee
from chutes_core.validator.catalog.docker_builder import DockerBuilder, Guard
from chutes_core.validator.catalog.images import Images
from chutes_core.validator.gateway.asgi import AsgiApp, Receive, Scope, Send
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.launches.admissions import AdmissionLimits, Admissions
from chutes_core.validator.launches.inventories import Inventories
from chutes_core.validator.launches.keeper import Keeper
from chutes_core.validator.launches.leases import LeaseBook
from chutes_core.validator.launches.lifecycle import Lifecycle
from chutes_core.validator.launches.lights import Lights
from chutes_core.validator.launches.logs import InstanceLogs
from chutes_core.validator.launches.pauses import Pauses
from chutes_core.validator.launches.plans import Plans
from chutes_core.validator.launches.rounds import Rounds
from chutes_core.validator.launches.service import Launches, LaunchLimits
from chutes_core.validator.launches.snapshot import build as build_snapshot
from chutes_core.validator.launches.transfers import Transfers
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.launches.wanted import Wanted
from chutes_core.validator.network import Network
from chutes_core.validator.pictures import FreshAfterWrites, Pictures
from chutes_core.validator.scoring.source import StoredWork
from chutes_core.validator.scoring.weights import WeightSetter
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.validator.store.database import Store
from chutes_core.validator.treasury import Treasury, build_treasury
from chutes_core.wire.neuron_http import SignedASGI
from chutes_core.wire.peers import SignedClient

WORKER = "gateway-0"
MINER_PREFIX = "/miner/"


@dataclass(frozen=True)
class Ground:
    """What the process stands on, given by its entrance."""

    settings: ValidatorSettings
    keys: NeuronKeys
    chain: ChainClient
    client: SignedClient
    clock: Clock
    public_url: str


@dataclass(frozen=True)
class Validator:
    """Every part that lives as long as the process."""

    ground: Ground
    store: Store
    journal: Journal
    network: Network
    watcher: TransferWatcher
    gateway: Gateway
    pictures: Pictures
    lifecycle: Lifecycle
    keeper: Keeper
    attestor: ProcessAttestor
    lights: Lights
    rounds: Rounds
    inventories: Inventories
    images: Images
    treasury: Treasury
    settlement: Settlement
    weights: WeightSetter


class ControlPlane:
    """The application behind the gateway; `serve` is set when its parts exist."""

    def __init__(self) -> None:
        self.serve: AsgiApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        assert self.serve is not None, "no request comes before the parts are wired"
        await self.serve(scope, receive, send)


@dataclass(frozen=True)
class _Addresses:
    """Derives both addresses of an account from the treasuries' public keys."""

    settings: ValidatorSettings

    def payment(self, number: int) -> str:
        return derive(self.settings.payment_treasury, number)

    def deposit(self, number: int) -> str:
        return derive(self.settings.deposit_treasury, number)


def build(ground: Ground) -> Validator:
    """Construct every part and wire it to the others; nothing runs yet."""
    settings, clock = ground.settings, ground.clock
    data_dir = settings.data_dir.expanduser()
    store = Store(data_dir / "validator.sqlite", clock=clock)
    ground.chain.use_outbox(store.outbox, archive_url=settings.archive_url)
    vault = Vault.open(data_dir / "vault.key")
    journal = Journal(data_dir / "journal" / WORKER, WORKER)
    rates = Rates(settings.tao_usd_micros, settings.max_call_s)
    fee_rao = rates.deploy_fee_rao if settings.deploy_fee else no_fee
    failures = FailedTries(clock)
    network = Network(ground.chain, self_hotkey=ground.keys.hotkey_ss58)
    control = ControlPlane()
    gateway = _gateway(ground, control, journal, failures)
    pauses = Pauses()
    pictures = Pictures(
        lambda: build_snapshot(store, vault, lambda chute: rates.of(chute.selector), pauses),
        gateway.swap,
    )
    secrets = Secrets(store, clock, vault)
    launching = _launching(ground, store, vault, network, gateway, pictures, pauses, secrets)
    images = Images(
        store,
        clock,
        _builder(ground, store),
        slots=settings.build_slots,
        require_developer=settings.require_developer_deposit,
    )
    services = Services(
        store=store,
        accounts=Accounts(store, clock, _Addresses(settings)),
        images=images,
        chutes=Chutes(
            store,
            clock,
            fee_rao=fee_rao,
            require_developer=settings.require_developer_deposit,
        ),
        ledger=Ledger(store),
        rates=rates,
        clock=clock,
        failures=failures,
        secrets=secrets,
        tail=InstanceLogs(ground.client, network.url_of_miner).tail,
        wake=gateway.demand.touch,
    )
    treasury = build_treasury(
        settings,
        store,
        clock,
        ground.chain,
        network,
        validator_ss58=ground.keys.hotkey_ss58,
        held_rao=gateway.held_rao,
    )
    control.serve = _control_plane(ground, store, network, pictures, launching, services, treasury)
    work = StoredWork(store, tao_usd_micros=settings.tao_usd_micros)
    return Validator(
        ground=ground,
        store=store,
        journal=journal,
        network=network,
        watcher=TransferWatcher(settings.chain_url, archive_url=settings.archive_url),
        gateway=gateway,
        pictures=pictures,
        lifecycle=launching.lifecycle,
        keeper=launching.keeper,
        attestor=launching.attestor,
        lights=launching.lights,
        rounds=launching.rounds,
        inventories=launching.inventories,
        images=images,
        treasury=treasury,
        settlement=Settlement(store),
        weights=WeightSetter(ground.chain, ground.keys.hotkey, store.epochs, work),
    )


def _builder(ground: Ground, store: Store) -> Builder:
    settings = ground.settings
    if settings.runtime == "process":
        return ProcessRuntimeBuilder()
    guard = Guard(
        f"builds:{ground.keys.hotkey_ss58}",
        required=not settings.build_unguarded,
        allowed=settings.build_allowed_ranges,
    )
    host = settings.docker_host or None
    return DockerBuilder(store.blobs, lambda: connect(host), guard, settings.build_limits)


def _gateway(
    ground: Ground, control: ControlPlane, journal: Journal, failures: FailedTries
) -> Gateway:
    settings = ground.settings
    limits = GatewayLimits(
        max_call_s=settings.max_call_s,
        cold_wait_s=settings.cold_wait_s,
        key_calls_per_s=settings.calls_per_second,
        key_burst=settings.calls_burst,
        max_body_bytes=settings.max_body_bytes,
    )
    return Gateway(
        control=control,
        journal=journal,
        limits=limits,
        domain=settings.domain or None,
        failures=failures,
        clock=ground.clock,
    )


@dataclass(frozen=True)
class _Launching:
    """The parts that launches consist of."""

    leases: LeaseBook
    inventories: Inventories
    attestor: ProcessAttestor
    lights: Lights
    rounds: Rounds
    lifecycle: Lifecycle
    launches: Launches
    transfers: Transfers
    keeper: Keeper


def _launching(
    ground: Ground,
    store: Store,
    vault: Vault,
    network: Network,
    gateway: Gateway,
    pictures: Pictures,
    pauses: Pauses,
    secrets: Secrets,
) -> _Launching:
    settings, clock = ground.settings, ground.clock
    limits = LaunchLimits(
        profile=settings.profile,
        lease_renewal_s=settings.lease_renewal_s,
        lease_blocks=settings.lease_blocks,
    )
    leases = LeaseBook(store.leases, self_hotkey=ground.keys.hotkey_ss58)
    inventories = Inventories(ground.client, leases)
    attestor = ProcessAttestor()
    admissions = Admissions(
        store=store,
        clock=clock,
        limits=_admission_limits(settings),
        known=lambda: inventories.known,
    )
    plans = Plans(
        store=store,
        chain=network,
        vault=vault,
        clock=clock,
        self_hotkey=ground.keys.hotkey_ss58,
        known=lambda: inventories.known,
        light_profile=settings.profile_of("light"),
    )
    wanted = Wanted(
        store=store, demand=gateway.demand.snapshot, tao_usd_micros=settings.tao_usd_micros
    )
    lifecycle = Lifecycle(
        store=store,
        attestor=attestor,
        plans=plans,
        admissions=admissions,
        vault=vault,
        clock=clock,
        limits=limits,
        secrets_of=secrets.of_chute,
        changed=pictures.refresh,
    )
    launches = Launches(
        store=store,
        chain=network,
        wanted=wanted,
        leases=leases,
        admissions=admissions,
        vault=vault,
        clock=clock,
        limits=limits,
        on_listening=lifecycle.begin,
        on_gone=lifecycle.forget,
        changed=pictures.refresh,
    )
    keeper = Keeper(
        store=store,
        chain=network,
        leases=leases,
        wanted=wanted,
        lifecycle=lifecycle,
        clock=clock,
        limits=limits,
        changed=pictures.refresh,
    )
    lights = Lights(
        store=store,
        attestor=attestor,
        plans=plans,
        lifecycle=lifecycle,
        pauses=pauses,
        in_flight=gateway.in_flight_of,
        changed=pictures.refresh,
        clock=clock,
        interval_s=settings.light_seconds,
    )
    return _Launching(
        leases=leases,
        inventories=inventories,
        attestor=attestor,
        lights=lights,
        rounds=Rounds(
            store=store,
            lights=lights,
            self_hotkey=ground.keys.hotkey_ss58,
            one_in=settings.round_one_in,
        ),
        lifecycle=lifecycle,
        launches=launches,
        transfers=Transfers(store, vault),
        keeper=keeper,
    )


def _admission_limits(settings: ValidatorSettings) -> AdmissionLimits:
    return AdmissionLimits(
        profile=settings.profile_of("admission"),
        periodic=settings.profile_of("periodic"),
        max_age_s=settings.admission_max_age_s,
        periodic_s=settings.periodic_seconds,
        failed_block_s=settings.failed_block_s,
    )


def _control_plane(
    ground: Ground,
    store: Store,
    network: Network,
    pictures: Pictures,
    launching: _Launching,
    services: Services,
    treasury: Treasury,
) -> AsgiApp:
    app = FastAPI(title="chutes validator", version=VERSION)
    install_errors(app)
    app.include_router(
        money.build_router(
            services,
            deposits=treasury.deposits,
            refunds=treasury.refunds,
            linking=treasury.linking,
            gifts=treasury.gifts,
        )
    )
    app.include_router(build_router(services))
    app.include_router(miner.build_router(launching.launches, store))
    app.include_router(transfers.build_router(launching.transfers))
    app.include_router(
        discovery.build_router(
            keypair=ground.keys.hotkey,
            public_url=ground.public_url,
            netuid=ground.settings.netuid,
            genesis_hash=ground.chain.genesis_hash,
            version=VERSION,
            leases=launching.leases,
            chain=network,
            store=store,
            clock=ground.clock,
        )
    )
    return SignedASGI(
        FreshAfterWrites(app, pictures, except_under=MINER_PREFIX),
        keypair=ground.keys.hotkey,
        nonces=store.nonces,
        authorise=network.authorise_neuron,
        clock=ground.clock,
        prefixes=(MINER_PREFIX,),
        failures=services.failures,
    )
