"""The launches of this process: what is asked for, granted, listening, leaving, and over.

Read by the scheduler (which GPUs are taken), by the inventory and by the operator's status; changed
by the deployer and the follower alone. Invariant: a GPU counts as taken from the moment a launch is
asked for until its instance is really gone.
"""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field

from chutes_core.base.errors import NotFound
from chutes_core.base.loops import Signal
from chutes_core.miner.cache.folders import Key
from chutes_core.miner.placement import Launch, Running
from chutes_core.miner.shares import Tenant
from chutes_core.miner.store import LaunchRecord
from chutes_core.wire.system import is_admission

_KEPT_ENDS = 50


@dataclass
class Live:
    """One launch in this process.

    Attributes:
        record: what the store keeps of it.
        beside: idle GPUs that prove with it until it is proven.
        task: what brings it up.
        end_reason: the validator's word that it is over.
        leaving: its validator was asked to take its calls away; its end follows.
        ending: its end has begun.
        word: its state as its validator said last.
        since_us: monotonic time of its grant, or of its adoption.
        active_since_us: monotonic time at which it was first seen active; 0 before.
        rao_per_hour: what its chute's users pay for it.
        failure: what nobody has foreseen and what therefore ends it; "" for nothing.
    """

    record: LaunchRecord
    beside: tuple[str, ...] = ()
    task: "asyncio.Task[None] | None" = None
    end_reason: str | None = None
    leaving: bool = False
    ending: bool = False
    word: str = ""
    since_us: int = 0
    active_since_us: int = 0
    rao_per_hour: int = 0
    failure: str = ""

    @property
    def over(self) -> bool:
        """Tell whether its instance is gone."""
        return self.record.state == "ended"

    @property
    def unheard(self) -> bool:
        """Tell whether the instance listens and no task is about to say so (after a restart)."""
        idle = self.task is None or self.task.done()
        return self.record.state == "listening" and idle and not self.ending


@dataclass(frozen=True)
class End:
    """An instance that ended, and why."""

    launch_id: str
    chute_id: str
    validator_hotkey: str
    reason: str
    detail: str
    at_s: int


@dataclass
class Books:
    """All launches of this process; `ends` are the last ones, newest last, `counts` all of them.

    ``news`` is set where another round may have something to do: an instance has ended.
    """

    live: dict[str, Live] = field(default_factory=dict)
    ends: "deque[End]" = field(default_factory=lambda: deque(maxlen=_KEPT_ENDS))
    counts: dict[str, int] = field(default_factory=dict)
    news: Signal = field(default_factory=Signal)
    _asking: dict[tuple[str, ...], str] = field(default_factory=dict)
    _attesting: set[tuple[str, ...]] = field(default_factory=set)

    def ask(self, action: Launch) -> None:
        """Count the GPUs of a launch that is being asked for as taken."""
        gpus = (*action.gpu_uuids, *action.idle_gpus)
        self._asking[gpus] = action.validator_hotkey
        if is_admission(action.chute.chute_id):
            self._attesting.add(gpus)

    def answered(self, action: Launch) -> None:
        """Note that the validator has granted or refused."""
        gpus = (*action.gpu_uuids, *action.idle_gpus)
        self._asking.pop(gpus, None)
        self._attesting.discard(gpus)

    def asks(self, validator_hotkey: str) -> bool:
        """Tell whether an answer of a validator is awaited."""
        return validator_hotkey in self._asking.values()

    def of(self, validator_hotkey: str, launch_id: str) -> Live:
        """Return a validator's own launch.

        Raises:
            NotFound: ``no_such_launch``, also where the launch is another validator's.
        """
        live = self.live.get(launch_id)
        if live is None or live.record.validator_hotkey != validator_hotkey:
            raise NotFound("no_such_launch", "this miner holds no such launch of yours")
        return live

    def ended(self, end: End) -> None:
        """Keep an end for the operator."""
        self.ends.append(end)
        self.counts[end.reason] = self.counts.get(end.reason, 0) + 1
        self.news.set()

    def launch_ids(self) -> dict[str, str]:
        """Return GPU uuid -> launch id of every GPU that serves a launch."""
        held = [live.record for live in self.live.values() if not live.over]
        return {gpu: record.launch_id for record in held for gpu in record.gpu_uuids}

    def busy(self) -> dict[str, str]:
        """Return GPU uuid -> validator, for GPUs that serve a launch or are offered for one.

        A node attestation is over in seconds, so it prolongs no lease.
        """
        return {
            gpu: run.validator_hotkey
            for run in self.running()
            if not run.admission
            for gpu in run.gpu_uuids
        }

    def using(self) -> dict[Key, int]:
        """Return (validator, chute id) -> GPUs, of the launches whose instances may write models.

        One that has ended is not over before its instance is gone.
        """
        found: Counter[Key] = Counter()
        for live in self.live.values():
            record = live.record
            if not live.over and not is_admission(record.chute_id):
                found[Key(record.validator_hotkey, record.chute_id)] += len(record.gpu_uuids)
        return dict(found)

    def taken(self) -> int:
        """Return how many GPUs serve a launch, prove beside one, or are offered for one."""
        return len({gpu for run in self.running() for gpu in (*run.gpu_uuids, *run.beside)})

    def tenants(self, now_us: int) -> tuple[Tenant, ...]:
        """Return the instances of chutes, as `shares.to_return` sees them."""
        return tuple(
            Tenant(
                live.record.gpu_uuids,
                live.record.validator_hotkey,
                (now_us - live.since_us) / 1e6,
                live.rao_per_hour,
            )
            for live in self.live.values()
            if not live.over and not is_admission(live.record.chute_id)
        )

    def running(self) -> tuple[Running, ...]:
        """Return the launches, granted or asked for, as `placement.plan` sees them."""
        held = [_running(live) for live in self.live.values() if not live.over]
        asked = [
            Running(f"asking {gpus[0]}", who, gpus, admission=gpus in self._attesting)
            for gpus, who in self._asking.items()
        ]
        return (*held, *asked)


def _running(live: Live) -> Running:
    return Running(
        live.record.launch_id,
        live.record.validator_hotkey,
        live.record.gpu_uuids,
        live.end_reason,
        live.beside,
        is_admission(live.record.chute_id),
    )
