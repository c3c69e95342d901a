"""What all workers together are asked for, and do.

Invariant: a dead worker's last call is remembered, and counters never go down.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.validator.gateway.demand import Demand

_PREFIX, _OUTCOME = "chutes_gateway_", "outcome_"
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


def outcomes_of(stats: Mapping[str, int]) -> dict[str, int]:
    """Return the counters among a worker's figures; all others are of the moment."""
    return {name: count for name, count in stats.items() if name.startswith(_OUTCOME)}


def metrics_of(stats: Mapping[str, int]) -> str:
    """Return a crew's figures in Prometheus' text format (0.0.4)."""
    lines = [f"# TYPE {_PREFIX}calls_total counter"]
    for name, count in sorted(outcomes_of(stats).items()):
        lines.append(f'{_PREFIX}calls_total{{outcome="{name.removeprefix(_OUTCOME)}"}} {count}')
    lines += [f"# TYPE {_PREFIX}worker_deaths_total counter"]
    lines += [f"{_PREFIX}worker_deaths_total {stats['worker_deaths']}"]
    for figure, name in _GAUGES.items():
        lines += [f"# TYPE {_PREFIX}{name} gauge", f"{_PREFIX}{name} {stats.get(figure, 0)}"]
    return "\n".join(lines) + "\n"


def _sum(one: ChuteDemand | None, other: ChuteDemand) -> ChuteDemand:
    if one is None:
        return other
    return ChuteDemand(
        max(one.last_call_s, other.last_call_s),
        one.in_flight + other.in_flight,
        one.waiting + other.waiting,
        min(filter(None, (one.waiting_since_s, other.waiting_since_s)), default=0),
    )
