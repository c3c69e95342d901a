"""The validator's parts, constructed and wired. Nothing is decided here; lifetime.py runs them.

Read it as the map of the process: what exists once, and who is given what. The groups of parts are
made in wiring/, one file each.
"""

from dataclasses import dataclass

from chutes_core.chain.transfers import TransferWatcher
from chutes_core.validator.attest.attestor import ProcessAttestor
from chutes_core.validator.billing.settle import Settlement
from chutes_core.validator.catalog.images import Images
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.workers.crew import Crew
from chutes_core.validator.gateway.workers.journals import Journals
from chutes_core.validator.health import Health
from chutes_core.validator.launches.bell import Bell
from chutes_core.validator.launches.inventories import Inventories
from chutes_core.validator.launches.keeper import Keeper
from chutes_core.validator.launches.lifecycle import Lifecycle
from chutes_core.validator.launches.lights import Lights
from chutes_core.validator.launches.rounds import Rounds
from chutes_core.validator.network import Network
from chutes_core.validator.pictures import Pictures
from chutes_core.validator.scoring.source import StoredWork
from chutes_core.validator.scoring.weights import WeightSetter
from chutes_core.validator.store.database import Store
from chutes_core.validator.wiring.control import build_control_plane
from chutes_core.validator.wiring.ground import Ground, Shared, build_shared
from chutes_core.validator.wiring.jobs import JobParts, build_jobs
from chutes_core.validator.wiring.launching import build_launching
from chutes_core.validator.wiring.services import build_services
from chutes_core.validator.wiring.traffic import build_traffic, sealer_of
from chutes_core.validator.wiring.treasury import Treasury, build_treasury


@dataclass(frozen=True)
class Validator:
    """Every part that lives as long as the process."""

    ground: Ground
    store: Store
    health: Health
    journals: Journals
    network: Network
    watcher: TransferWatcher
    gateway: Gateway | Crew
    pictures: Pictures
    lifecycle: Lifecycle
    keeper: Keeper
    bell: Bell
    attestor: ProcessAttestor
    lights: Lights
    rounds: Rounds
    inventories: Inventories
    images: Images
    jobs: JobParts
    treasury: Treasury
    settlement: Settlement
    weights: WeightSetter


def build(ground: Ground) -> Validator:
    """Construct every part and wire it to the others; nothing runs yet."""
    shared = build_shared(ground)
    traffic = build_traffic(shared)
    launching = build_launching(shared, traffic)
    jobs = build_jobs(shared, traffic, launching)
    services = build_services(shared, traffic, jobs)
    treasury = build_treasury(shared, traffic)
    traffic.control.serve = build_control_plane(
        shared, traffic.pictures, launching, services, treasury
    )
    return Validator(
        ground=ground,
        store=shared.store,
        health=shared.health,
        journals=traffic.journals,
        network=shared.network,
        watcher=_watcher(ground),
        gateway=traffic.gateway,
        pictures=traffic.pictures,
        lifecycle=launching.lifecycle,
        keeper=launching.keeper,
        bell=launching.bell,
        attestor=launching.attestor,
        lights=launching.lights,
        rounds=launching.rounds,
        inventories=launching.inventories,
        images=services.images,
        jobs=jobs,
        treasury=treasury,
        settlement=Settlement(shared.store, sealer=sealer_of(ground)),
        weights=_weights(shared),
    )


def _watcher(ground: Ground) -> TransferWatcher:
    return TransferWatcher(ground.settings.chain_url, archive_url=ground.settings.archive_url)


def _weights(shared: Shared) -> WeightSetter:
    ground, store = shared.ground, shared.store
    work = StoredWork(store, tao_usd_micros=shared.settings.tao_usd_micros)
    return WeightSetter(ground.chain, ground.keys.hotkey, store.epochs, work)
