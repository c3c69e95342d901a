"""What an operator asks of a running miner: what runs, what it earns, and why a GPU is idle.

Pure, from the scheduler's last world and plan, the books and the leases. Answered as JSON by
operator_http, and counted by metrics. Invariant: every GPU that serves nothing has a reason, and a
sentence that says what to do about it where something can be done.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from chutes_core.miner.cache.model_cache import CacheFacts
from chutes_core.miner.departures import Promise
from chutes_core.miner.inventory import Node
from chutes_core.miner.live import End, Live
from chutes_core.miner.placement import NoFit, Plan, Running, Slot, World
from chutes_core.miner.pulls import Pull
from chutes_core.wire.control import GpuHealth, HostFacts
from chutes_core.wire.model import Message
from chutes_core.wire.system import is_admission

NOTHING_WANTED = "nothing_wanted"
ATTESTING = "attesting"
UNLEASED = "no_lease"
MISSES: Mapping[str, str] = {
    UNLEASED: "no validator was found yet; see `validators` and run the doctor",
    NOTHING_WANTED: "no validator that holds its lease misses an instance",
    ATTESTING: "its validator attests it now",
    "gpu_class": "what is wanted takes other GPU classes",
    "not_enough_gpus": "what is wanted takes more GPUs of one class than this node leases to it",
    "gpus_busy": "what is wanted takes several GPUs, and others of them are busy",
    "backing_off": "what is wanted failed here lately; see `waiting` for the reason",
    "not_admitted": "it must pass a node attestation first; see the validator's /verdicts",
    "gpu_unhealthy": "see `problems`; after the repair it serves again by itself",
    "miner_outdated": "its validator speaks a newer protocol: update this checkout and restart",
    "draining": "the miner is stopping",
}


class GpuStatus(Message):
    """One GPU: whom it serves, or why it is idle."""

    uuid: str
    gpu_class: str
    stand_in: bool
    lessee: str | None
    lease_to_block: int | None
    launch_id: str | None
    idle_reason: str = ""
    idle_hint: str = ""
    problems: tuple[str, ...] = ()
    used_bytes: int = 0


class LaunchReport(Message):
    """One launch: what it is, for whom, since when, and what its users pay an hour."""

    launch_id: str
    chute_id: str
    validator: str
    gpu_uuids: tuple[str, ...]
    state: str
    age_s: int
    rao_per_hour: int


class EndReport(Message):
    """An instance that ended."""

    launch_id: str
    chute_id: str
    validator: str
    reason: str
    detail: str
    at_s: int


class Waiting(Message):
    """A chute that is left alone for a while, and why."""

    validator: str
    chute_id: str
    reason: str
    seconds: int


class ValidatorStatus(Message):
    """One validator: how long it has been silent, and whether it speaks this miner's protocol."""

    hotkey: str
    url: str
    stake_rao: int
    silent_s: int | None
    outdated: bool = False


class PullReport(Message):
    """An image that is being fetched; ``had_bytes`` were here before it was taken up again."""

    image_id: str
    name: str
    source: str
    got_bytes: int
    total_bytes: int
    had_bytes: int
    percent: int


class ModelFolder(Message):
    """The models of one chute; ``gpus`` of its instances use them now."""

    validator: str
    chute_id: str
    used_bytes: int
    used_at_s: int
    gpus: int


class CacheReport(Message):
    """The model cache; a folder in use may hold ``part_bytes`` for each of its GPUs."""

    used_bytes: int = 0
    most_bytes: int = 0
    part_bytes: int = 0
    folders: tuple[ModelFolder, ...] = ()
    evicted: dict[str, int] = Field(default_factory=dict)
    launches: dict[str, int] = Field(default_factory=dict)


class NodeStatus(Message):
    """Everything at once."""

    hotkey: str
    version: str
    protocol_min: int
    protocol_max: int
    runtime: str
    axon: str
    relay_port: int
    block: int
    registered: bool
    incentive: int | None
    hourly_cost_usd_micros: int
    users_pay_rao_per_hour: int
    draining: bool
    gpus: tuple[GpuStatus, ...]
    launches: tuple[LaunchReport, ...]
    validators: tuple[ValidatorStatus, ...]
    waiting: tuple[Waiting, ...]
    ended_lately: tuple[EndReport, ...]
    ended: dict[str, int]
    loop_failures: dict[str, int]
    walls_tried: dict[str, int]
    relay_carried: int
    relay_refused: dict[str, int]
    pulls: tuple[PullReport, ...] = ()
    cache: CacheReport = CacheReport()
    host: HostFacts = Field()


@dataclass(frozen=True)
class GpuView:
    """What is known of the node's GPUs at one instant."""

    promises: Mapping[str, Promise]
    running: tuple[Running, ...]
    last: tuple[World, Plan] | None
    draining: bool
    health_of: Callable[[str], GpuHealth | None]


def gpu_statuses(node: Node, view: GpuView) -> tuple[GpuStatus, ...]:
    """Return each GPU's status, in the node's order."""
    slots = {slot.gpu_uuid: slot for slot in view.last[0].slots} if view.last else {}
    return tuple(_gpu(node, index, slots, view) for index in range(len(node.gpus)))


def launch_reports(launches: Iterable[Live], now_us: int) -> tuple[LaunchReport, ...]:
    """Return the launches that are not over, oldest first."""
    held = sorted((one for one in launches if not one.over), key=lambda one: one.since_us)
    return tuple(
        LaunchReport(
            launch_id=one.record.launch_id,
            chute_id="attestation" if is_admission(one.record.chute_id) else one.record.chute_id,
            validator=one.record.validator_hotkey,
            gpu_uuids=one.record.gpu_uuids,
            state="draining" if one.leaving or one.ending else one.word or one.record.state,
            age_s=max(0, (now_us - one.since_us) // 1_000_000),
            rao_per_hour=one.rao_per_hour,
        )
        for one in held
    )


def end_reports(ends: Iterable[End]) -> tuple[EndReport, ...]:
    """Return the last ends, newest first."""
    return tuple(
        EndReport(
            launch_id=end.launch_id,
            chute_id=end.chute_id,
            validator=end.validator_hotkey,
            reason=end.reason,
            detail=end.detail[-300:],
            at_s=end.at_s,
        )
        for end in reversed(list(ends))
    )


def pull_reports(pulls: Iterable[Pull]) -> tuple[PullReport, ...]:
    """Return the images that are being fetched, oldest first."""
    return tuple(
        PullReport(
            image_id=pull.image_id,
            name=pull.name,
            source=pull.source,
            got_bytes=pull.got_bytes,
            total_bytes=pull.total_bytes,
            had_bytes=pull.had_bytes,
            percent=pull.percent,
        )
        for pull in pulls
    )


def cache_report(facts: CacheFacts) -> CacheReport:
    """Return the model cache, the folder used last first."""
    return CacheReport(
        used_bytes=facts.used_bytes,
        most_bytes=facts.bounds.most_bytes,
        part_bytes=facts.bounds.part_bytes,
        folders=tuple(
            ModelFolder(
                validator=one.key.validator_hotkey,
                chute_id=one.key.chute_id,
                used_bytes=one.used_bytes,
                used_at_s=one.used_at_s,
                gpus=one.gpus,
            )
            for one in sorted(facts.folders, key=lambda one: (-one.used_at_s, one.key))
        ),
        evicted=dict(facts.evicted),
        launches=dict(facts.launches),
    )


def _gpu(node: Node, index: int, slots: Mapping[str, Slot], view: GpuView) -> GpuStatus:
    gpu = node.gpus[index]
    promise, slot = view.promises.get(gpu.uuid), slots.get(gpu.uuid)
    health = view.health_of(gpu.uuid)
    run = next((r for r in view.running if gpu.uuid in (*r.gpu_uuids, *r.beside)), None)
    reason = _idle_reason(run, promise, slot, view)
    return GpuStatus(
        uuid=gpu.uuid,
        gpu_class=gpu.gpu_class,
        stand_in=gpu.stand_in,
        lessee=promise.validator_hotkey if promise else None,
        lease_to_block=promise.to_block if promise else None,
        launch_id=run.launch_id if run and not run.launch_id.startswith("asking ") else None,
        idle_reason=reason,
        idle_hint=MISSES.get(reason, ""),
        problems=health.problems if health else (),
        used_bytes=health.used_bytes if health else 0,
    )


def _idle_reason(
    run: Running | None,
    promise: Promise | None,
    slot: Slot | None,
    view: GpuView,
) -> str:
    if run is not None:
        return ATTESTING if run.admission else ""
    if view.draining:
        return "draining"
    if slot is not None and not slot.well:
        return "gpu_unhealthy"
    if promise is None or slot is None or view.last is None:
        return UNLEASED
    return _missed(promise.validator_hotkey, view.last[1].unplaced)


def _missed(lessee: str, unplaced: Sequence[NoFit]) -> str:
    """Return the reason nearest to success why a validator's wants were not placed here."""
    order = list(MISSES)
    reasons = [miss.reason for miss in unplaced if miss.validator_hotkey == lessee]
    return max(reasons, key=order.index, default=NOTHING_WANTED)
