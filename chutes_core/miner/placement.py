"""What to start and what to stop: a pure plan from what is wanted, leased and running.

Path: wanted lists of the validators -> `plan` -> deployer. Order of preference: the bounty, which
grows while callers wait; then an image that is already here; then models that are; then the higher
price per GPU, then the id (so that the answer never depends on the order of its inputs). All that
is decided within what is leased to a validator: what one says of its bounties moves its own wishes
about, and never a GPU (`shares` does not know them). A validator that wants node attestations gets
one of all its idle GPUs at once, before anything is placed on those that it has not admitted.
Invariants
(tests/property/test_placement_plan.py): no GPU is given twice, a launch only takes GPUs leased to
its own validator, classes and counts are met, and applying a plan leads to a state for which the
plan is empty.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from chutes_core.wire.control import AdmissionWanted, WantedChute

NoFitReason = Literal[
    "no_lease",
    "gpu_class",
    "not_enough_gpus",
    "gpus_busy",
    "backing_off",
    "not_admitted",
    "gpu_unhealthy",
    "miner_outdated",
]


@dataclass(frozen=True)
class Slot:
    """One GPU: its class, to whom it is leased now, the launch that it serves, and its health."""

    gpu_uuid: str
    gpu_class: str
    lessee: str | None
    launch_id: str | None = None
    well: bool = True


@dataclass(frozen=True)
class Running:
    """One launch of this miner; ``end_reason`` is set when its validator no longer has it open.

    ``beside`` are idle GPUs that prove with it, until it is proven; ``admission`` tells that it
    attests GPUs and serves nothing.
    """

    launch_id: str
    validator_hotkey: str
    gpu_uuids: tuple[str, ...]
    end_reason: str | None = None
    beside: tuple[str, ...] = ()
    admission: bool = False


@dataclass(frozen=True)
class World:
    """Everything that a plan depends on.

    ``warm_models`` holds (validator, chute id) pairs whose models are in this host's cache;
    ``backing_off`` holds (validator, chute id) pairs that failed lately; ``admissions`` what
    validators say of node attestations, and nothing of those that want none; ``prove_beside``
    tells whether idle GPUs can prove beside an instance; ``departing`` maps launches that must
    leave to the reason (see `departures`); ``outdated`` are validators whose protocol this miner
    does not speak.
    """

    slots: tuple[Slot, ...]
    running: tuple[Running, ...]
    wanted: Mapping[str, tuple[WantedChute, ...]]
    warm_images: frozenset[str] = frozenset()
    warm_models: frozenset[tuple[str, str]] = frozenset()
    backing_off: frozenset[tuple[str, str]] = frozenset()
    admissions: Mapping[str, AdmissionWanted] = field(default_factory=dict)
    prove_beside: bool = False
    departing: Mapping[str, str] = field(default_factory=dict)
    outdated: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Launch:
    """Ask the validator for a launch of this chute (or the system chute) on these GPUs.

    ``idle_gpus`` prove beside them and get no chute. ``reason`` says what spoke for it, in the
    order in which wishes are weighed.
    """

    validator_hotkey: str
    chute: WantedChute | AdmissionWanted
    gpu_uuids: tuple[str, ...]
    idle_gpus: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Stop:
    """Stop this launch's instance; ``drain`` asks its validator to let its calls end first."""

    launch_id: str
    reason: str
    drain: bool = False


@dataclass(frozen=True)
class NoFit:
    """A wanted chute that got no GPU of this node, and why."""

    validator_hotkey: str
    chute_id: str
    reason: NoFitReason


@dataclass(frozen=True)
class Plan:
    """The actions, and what could not be placed."""

    actions: tuple[Launch | Stop, ...]
    unplaced: tuple[NoFit, ...]


def plan(world: World) -> Plan:
    """Return what to do next; empty when nothing is to be done.

    GPUs of a launch that is being stopped count as busy: they are given anew by a later plan, when
    they are really free.
    """
    stops = _stops(world)
    busy = {gpu for launch in world.running for gpu in (*launch.gpu_uuids, *launch.beside)}
    busy |= {slot.gpu_uuid for slot in world.slots if slot.launch_id is not None}
    launches = _attestations(world, busy)
    unplaced: list[NoFit] = []
    placed: list[Launch] = []
    for validator, chute in _ranked(world):
        for _ in range(chute.missing):
            fit = _fit(world, validator, chute, busy)
            if not isinstance(fit, tuple):
                unplaced.append(NoFit(validator, chute.chute_id, fit))
                break
            busy.update(fit)
            placed.append(Launch(validator, chute, fit, reason=_merits(world, validator, chute)))
    if world.prove_beside:
        placed = [_with_idle(world, launch, busy) for launch in placed]
    return Plan((*stops, *launches, *placed), tuple(unplaced))


def _stops(world: World) -> list[Stop]:
    """Return what ends: at once where its validator has ended it, drained where it must leave."""
    stops = []
    for launch in sorted(world.running, key=lambda r: r.launch_id):
        if launch.end_reason is not None:
            stops.append(Stop(launch.launch_id, launch.end_reason))
        elif launch.launch_id in world.departing:
            stops.append(Stop(launch.launch_id, world.departing[launch.launch_id], drain=True))
    return stops


def _attestations(world: World, busy: set[str]) -> list[Launch]:
    """Return a node attestation for each validator that misses one; its GPUs become busy."""
    launches = []
    for validator, wanted in sorted(world.admissions.items()):
        free = tuple(
            slot.gpu_uuid
            for slot in sorted(world.slots, key=lambda slot: slot.gpu_uuid)
            if slot.lessee == validator and slot.gpu_uuid not in busy and slot.well
        )
        waiting = (validator, wanted.chute_id) in world.backing_off
        if waiting or validator in world.outdated or set(free) <= set(wanted.admitted):
            continue
        busy.update(free)
        launches.append(Launch(validator, wanted, free, reason="attestation"))
    return launches


def _with_idle(world: World, launch: Launch, busy: set[str]) -> Launch:
    """Return the launch with all idle GPUs that it may take along; they become busy."""
    idle = tuple(
        slot.gpu_uuid
        for slot in sorted(world.slots, key=lambda slot: slot.gpu_uuid)
        if slot.lessee == launch.validator_hotkey and slot.gpu_uuid not in busy and slot.well
    )
    busy.update(idle)
    return replace(launch, idle_gpus=idle)


def _ranked(world: World) -> list[tuple[str, WantedChute]]:
    def key(item: tuple[str, WantedChute]) -> tuple[int, bool, bool, int, str, str]:
        validator, chute = item
        cold_image = chute.image_id not in world.warm_images
        cold_models = (validator, chute.chute_id) not in world.warm_models
        price = chute.rao_per_hour // chute.gpu_count
        return -chute.bounty, cold_image, cold_models, -price, chute.chute_id, validator

    pairs = [(v, chute) for v, chutes in world.wanted.items() for chute in chutes]
    return sorted(pairs, key=key)


def _merits(world: World, validator: str, chute: WantedChute) -> str:
    """Return what speaks for a wish, for the log."""
    merits = [f"bounty {chute.bounty}"] if chute.bounty else []
    if chute.image_id in world.warm_images:
        merits.append("warm image")
    if (validator, chute.chute_id) in world.warm_models:
        merits.append("warm models")
    return ", ".join([*merits, f"{chute.rao_per_hour // chute.gpu_count} rao an hour per GPU"])


def _fit(
    world: World, validator: str, chute: WantedChute, busy: set[str]
) -> tuple[str, ...] | NoFitReason:
    """Return GPUs of one class for one instance, or the first reason that stands against it."""
    if validator in world.outdated:
        return "miner_outdated"
    if (validator, chute.chute_id) in world.backing_off:
        return "backing_off"
    leased = [slot for slot in world.slots if slot.lessee == validator]
    if not leased:
        return "no_lease"
    classes = set(chute.gpu_classes)
    fitting = [slot for slot in leased if not classes or slot.gpu_class in classes]
    if not fitting:
        return "gpu_class"
    if not _of_one_class(fitting, chute.gpu_count):
        return "not_enough_gpus"
    fitting = [slot for slot in fitting if slot.well]
    if not _of_one_class(fitting, chute.gpu_count):
        return "gpu_unhealthy"
    free = [slot for slot in fitting if slot.gpu_uuid not in busy]
    admission = world.admissions.get(validator)
    if admission is None:
        return _of_one_class(free, chute.gpu_count) or "gpus_busy"
    admitted = [slot for slot in free if slot.gpu_uuid in admission.admitted]
    fit = _of_one_class(admitted, chute.gpu_count)
    return fit or ("not_admitted" if _of_one_class(free, chute.gpu_count) else "gpus_busy")


def _of_one_class(slots: Iterable[Slot], count: int) -> tuple[str, ...]:
    """Return the first ``count`` GPUs of a class that has so many, else an empty tuple.

    Of several classes, the one with the fewest left over is taken, to keep larger groups whole.
    """
    groups: dict[str, list[str]] = {}
    for slot in slots:
        groups.setdefault(slot.gpu_class, []).append(slot.gpu_uuid)
    enough = [(len(uuids), name) for name, uuids in groups.items() if len(uuids) >= count]
    if not enough:
        return ()
    return tuple(sorted(groups[min(enough)[1]])[:count])
