"""What all workers together are asked for, and do.

Invariant: a dead worker's last call is remembered, and counters never go down.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.validator.gateway.demand import Demand
from chutes_core.validator.gateway.metrics import PREFIX, Counts, gauge_lines

_OUTCOME = "outcome_"
_GAUGES = {
    "in_flight": "calls_in_flight",
    "slots": "slots_taken",
    "waiting": "callers_waiting",
    "body_bytes": "body_bytes",
    "workers": "workers",
}


class DemandSum:
    """Demand in the main process: the workers' reports, and wishes of the control plane.

    Attributes:
        news: as of `Demand`.
    """

    def __init__(
        self, clock: Clock, reports: Callable[[], Iterable[Mapping[str, ChuteDemand]]]
    ) -> None:
        self._own = Demand(clock)
        self._reports = reports
        self._past: dict[str, int] = {}
        self.news = self._own.news

    def snapshot(self) -> dict[str, ChuteDemand]:
        """Return all counters as they were last reported, by chute id."""
        total = self._own.snapshot()
        for chute_id, last_call_s in self._past.copy().items():
            total[chute_id] = _sum(total.get(chute_id), ChuteDemand(last_call_s))
        for report in self._reports():
            for chute_id, one in report.items():
                total[chute_id] = _sum(total.get(chute_id), one)
        return total

    def touch(self, chute_id: str) -> None:
        """Note that somebody wants the chute hot, without a call (warm-up)."""
        self._own.touch(chute_id)

    def heard(self, before: Mapping[str, ChuteDemand], report: Mapping[str, ChuteDemand]) -> None:
        """Take note of a worker's new report: somebody may have begun to wait."""
        for chute_id, one in report.items():
            if one.waiting and not before.get(chute_id, ChuteDemand()).waiting:
                self.news.set()

    def buried(self, report: Mapping[str, ChuteDemand]) -> None:
        """Keep when a dead worker was last called."""
        for chute_id, one in report.items():
            self._past[chute_id] = max(one.last_call_s, self._past.get(chute_id, 0))

    def keep(self, chute_ids: Collection[str]) -> None:
        """Forget chutes that are gone."""
        self._own.keep(chute_ids)
        self._past = {chute: at_s for chute, at_s in self._past.items() if chute in chute_ids}


class Reported(Protocol):
    """A worker's figures as it last reported them (`Member`)."""

    @property
    def stats(self) -> Mapping[str, int]:
        """Its `Gateway.stats`."""
        ...

    @property
    def counts(self) -> Mapping[str, Any] | None:
        """Its `Counts`, as said; None before its first report."""
        ...


class Sums:
    """The figures of all workers together, also of those that are gone."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._counts = Counts()

    def bury(self, worker: Reported) -> None:
        """Keep what a worker has counted; its figures of the moment end with it."""
        counted = {name: n for name, n in worker.stats.items() if name.startswith(_OUTCOME)}
        self._outcomes.update(counted)
        if worker.counts is not None:
            self._counts.add(worker.counts)

    def stats(self, living: Collection[Reported], *, deaths: int) -> dict[str, int]:
        """Return all counters added up, and how many workers live and have died."""
        total: Counter[str] = Counter(self._outcomes)
        for worker in living:
            total.update(worker.stats)
        return {**total, "workers": len(living), "worker_deaths": deaths}

    def metrics(
        self, living: Collection[Reported], gauges: Mapping[str, float], *, deaths: int
    ) -> str:
        """Return all figures in Prometheus' text format (0.0.4).

        Args:
            living: the workers.
            gauges: of the main process.
            deaths: how many workers have ended that were not told to.
        """
        total = Counts()
        for counted in (self._counts.said(), *(worker.counts for worker in living)):
            if counted is not None:
                total.add(counted)
        stats = self.stats(living, deaths=deaths)
        shown = {name: float(stats.get(figure, 0)) for figure, name in _GAUGES.items()}
        # each worker finds out for itself; together they would count an instance several times
        shown["instances_broken"] = max((one.stats.get("broken", 0) for one in living), default=0)
        dead = [
            f"# TYPE {PREFIX}worker_deaths_total counter",
            f"{PREFIX}worker_deaths_total {deaths}",
        ]
        return "\n".join((*total.lines(), *dead, *gauge_lines(shown | dict(gauges)))) + "\n"


def _sum(one: ChuteDemand | None, other: ChuteDemand) -> ChuteDemand:
    if one is None:
        return other
    return ChuteDemand(
        max(one.last_call_s, other.last_call_s),
        one.in_flight + other.in_flight,
        one.waiting + other.waiting,
        min(filter(None, (one.waiting_since_s, other.waiting_since_s)), default=0),
    )
