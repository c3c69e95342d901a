"""The parts that launches consist of: from a miner's inventory to a verified instance and its end.

Read `build_launching` as the list of who is given what; each function below makes one part.
"""

from dataclasses import dataclass

from chutes_core.validator.attest.attestor import ProcessAttestor
from chutes_core.validator.launches.admissions import AdmissionLimits, Admissions
from chutes_core.validator.launches.bell import Bell
from chutes_core.validator.launches.drains import Drains
from chutes_core.validator.launches.inventories import Inventories
from chutes_core.validator.launches.keeper import Keeper
from chutes_core.validator.launches.leases import LeaseBook
from chutes_core.validator.launches.lifecycle import Lifecycle
from chutes_core.validator.launches.lights import Lights
from chutes_core.validator.launches.musters import Muster
from chutes_core.validator.launches.plans import Plans
from chutes_core.validator.launches.rounds import Rounds
from chutes_core.validator.launches.service import Launches, LaunchLimits
from chutes_core.validator.launches.transfers import Transfers
from chutes_core.validator.launches.wanted import Wanted
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.validator.wiring.ground import Shared
from chutes_core.validator.wiring.traffic import Traffic


@dataclass(frozen=True)
class Launching:
    """The parts that launches consist of."""

    leases: LeaseBook
    inventories: Inventories
    attestor: ProcessAttestor
    lights: Lights
    rounds: Rounds
    lifecycle: Lifecycle
    launches: Launches
    bell: Bell
    transfers: Transfers
    keeper: Keeper
    wanted: Wanted


@dataclass(frozen=True)
class _Known:
    """What says which GPUs there are, whose they are and what they shall serve."""

    leases: LeaseBook
    inventories: Inventories
    admissions: Admissions
    wanted: Wanted


def build_launching(shared: Shared, traffic: Traffic) -> Launching:
    """Construct the parts in the order in which they need each other."""
    limits = _launch_limits(shared.settings)
    attestor = ProcessAttestor()
    muster = Muster(attestor)
    known = _known(shared, traffic, muster)
    plans = _plans(shared, known)
    lifecycle = _lifecycle(shared, traffic, known, muster, plans, limits)
    lights = _lights(shared, traffic, attestor, plans, lifecycle)
    keeper = _keeper(shared, traffic, known, lifecycle, limits)
    return Launching(
        leases=known.leases,
        inventories=known.inventories,
        attestor=attestor,
        lights=lights,
        rounds=_rounds(shared, lights, muster, known),
        lifecycle=lifecycle,
        launches=_launches(shared, traffic, known, lifecycle, keeper, limits),
        bell=Bell(known.wanted, traffic.gateway.demand.news, shared.clock.now_s),
        transfers=Transfers(shared.store, shared.vault),
        keeper=keeper,
        wanted=known.wanted,
    )


def _launch_limits(settings: ValidatorSettings) -> LaunchLimits:
    return LaunchLimits(
        profile=settings.profile,
        lease_renewal_s=settings.lease_renewal_s,
        lease_blocks=settings.lease_blocks,
        rollover_grace_s=settings.rollover_grace_s,
    )


def _admission_limits(settings: ValidatorSettings) -> AdmissionLimits:
    return AdmissionLimits(
        profile=settings.profile_of("admission"),
        periodic=settings.profile_of("periodic"),
        max_age_s=settings.admission_max_age_s,
        periodic_s=settings.periodic_seconds,
        failed_block_s=settings.failed_block_s,
    )


def _known(shared: Shared, traffic: Traffic, muster: Muster) -> _Known:
    leases = LeaseBook(
        shared.store.leases, shared.network, self_hotkey=shared.ground.keys.hotkey_ss58
    )
    inventories = Inventories(shared.ground.client, leases)
    return _Known(
        leases=leases,
        inventories=inventories,
        admissions=Admissions(
            store=shared.store,
            clock=shared.clock,
            limits=_admission_limits(shared.settings),
            known=lambda: inventories.known,
            called_up=muster.called,
        ),
        wanted=Wanted(
            store=shared.store,
            demand=traffic.gateway.demand.snapshot,
            tao_usd_micros=shared.settings.tao_usd_micros,
        ),
    )


def _plans(shared: Shared, known: _Known) -> Plans:
    return Plans(
        store=shared.store,
        chain=shared.network,
        vault=shared.vault,
        clock=shared.clock,
        self_hotkey=shared.ground.keys.hotkey_ss58,
        known=lambda: known.inventories.known,
        light_profile=shared.settings.profile_of("light"),
    )


def _lifecycle(
    shared: Shared,
    traffic: Traffic,
    known: _Known,
    muster: Muster,
    plans: Plans,
    limits: LaunchLimits,
) -> Lifecycle:
    return Lifecycle(
        store=shared.store,
        attestor=muster,
        plans=plans,
        admissions=known.admissions,
        vault=shared.vault,
        clock=shared.clock,
        limits=limits,
        secrets_of=shared.secrets.of_chute,
        changed=traffic.pictures.refresh,
    )


def _launches(
    shared: Shared,
    traffic: Traffic,
    known: _Known,
    lifecycle: Lifecycle,
    keeper: Keeper,
    limits: LaunchLimits,
) -> Launches:
    return Launches(
        store=shared.store,
        chain=shared.network,
        wanted=known.wanted,
        leases=known.leases,
        admissions=known.admissions,
        vault=shared.vault,
        clock=shared.clock,
        limits=limits,
        passes=shared.registry,
        on_listening=lifecycle.begin,
        on_leaving=keeper.leave,
        on_gone=lifecycle.forget,
        changed=traffic.pictures.refresh,
    )


def _keeper(
    shared: Shared, traffic: Traffic, known: _Known, lifecycle: Lifecycle, limits: LaunchLimits
) -> Keeper:
    return Keeper(
        store=shared.store,
        chain=shared.network,
        leases=known.leases,
        wanted=known.wanted,
        lifecycle=lifecycle,
        clock=shared.clock,
        limits=limits,
        changed=traffic.pictures.refresh,
    )


def _lights(
    shared: Shared,
    traffic: Traffic,
    attestor: ProcessAttestor,
    plans: Plans,
    lifecycle: Lifecycle,
) -> Lights:
    return Lights(
        store=shared.store,
        attestor=attestor,
        plans=plans,
        lifecycle=lifecycle,
        pauses=traffic.pauses,
        drains=Drains(
            in_flight=traffic.gateway.in_flight_of,
            clock=shared.clock,
            longest_call_s=shared.settings.max_call_s,
        ),
        changed=traffic.pictures.refresh,
        clock=shared.clock,
        interval_s=shared.settings.light_seconds,
    )


def _rounds(shared: Shared, lights: Lights, muster: Muster, known: _Known) -> Rounds:
    network = shared.network
    return Rounds(
        store=shared.store,
        lights=lights,
        muster=muster,
        admissions=known.admissions,
        leased=lambda hotkey, uuid: known.leases.held(hotkey, uuid, network.block),
        self_hotkey=shared.ground.keys.hotkey_ss58,
        one_in=shared.settings.round_one_in,
    )
