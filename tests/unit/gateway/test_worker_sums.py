"""What workers report is added up, and outlives them."""

from collections import Counter
from dataclasses import dataclass

import orjson

from chutes_core.base.clock import SystemClock
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.validator.gateway.metrics import Counts
from chutes_core.validator.gateway.workers.sums import DemandSum, Sums


def test_demand_is_the_sum_of_all_workers():
    """Callers add up; the last call is the last of any; a dead worker's is not forgotten."""
    reports = [{"c": ChuteDemand(5, 1, 2)}, {"c": ChuteDemand(7, 3, 0), "d": ChuteDemand(1, 0, 1)}]
    demand = DemandSum(SystemClock(), lambda: reports)
    assert demand.snapshot() == {"c": ChuteDemand(7, 4, 2), "d": ChuteDemand(1, 0, 1)}
    demand.buried(reports.pop())
    assert demand.snapshot() == {"c": ChuteDemand(7, 1, 2), "d": ChuteDemand(1, 0, 0)}
    demand.keep(["d"])
    assert demand.snapshot() == {"c": ChuteDemand(5, 1, 2), "d": ChuteDemand(1, 0, 0)}


async def test_a_first_waiting_caller_is_news():
    """Whoever counts what is wanted is woken once, not by every report."""
    demand = DemandSum(SystemClock(), list)
    waiting, none = {"c": ChuteDemand(5, 0, 1)}, {"c": ChuteDemand(5, 1, 0)}
    demand.heard({}, waiting)
    assert await demand.news.wait(60)
    demand.heard(waiting, waiting)
    demand.heard(waiting, none)
    assert not await demand.news.wait(0)


@dataclass
class Worker:
    """What one worker has reported."""

    stats: dict[str, int]
    counts: dict[str, object] | None


def reported(**stats):
    """Return a worker with one answered call of 3 ms, as it arrives over the channel."""
    counts = Counts(Counter(ok=1), Counter(no_key=2))
    counts.durations.observe(3000)
    counts.first_bytes.observe(2000)
    said = orjson.loads(orjson.dumps(counts.said()))
    return Worker({"outcome_ok": 1} | stats, said)


def values(text):
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    shown = {name.removeprefix("chutes_gateway_"): float(value) for name, _, value in lines}
    assert len(shown) == len(lines), "no figure is said twice"
    return shown


def test_figures_of_workers_are_those_of_one_process_added_up():
    """Counters and histograms also of workers that are gone; gauges of those that live."""
    sums = Sums()
    sums.bury(reported(in_flight=7))
    living = [reported(in_flight=2, broken=1), reported(in_flight=1, broken=1), Worker({}, None)]
    shown = values(sums.metrics(living, {"journal_lag_records": 4}, deaths=1))
    assert shown['calls_total{outcome="ok"}'] == shown["call_seconds_count"] == 3
    assert shown['refused_total{code="no_key"}'] == 6
    assert shown['call_seconds_bucket{le="0.0025"}'] == 0
    assert shown['call_seconds_bucket{le="0.005"}'] == 3
    assert shown["call_seconds_sum"] == 0.009
    assert shown["first_byte_seconds_sum"] == 0.006
    assert shown["calls_in_flight"] == 3
    assert shown["instances_broken"] == 1, "the same one, as each of them sees it"
    assert (shown["workers"], shown["worker_deaths_total"]) == (3, 1)
    assert shown["journal_lag_records"] == 4
    stats = sums.stats(living, deaths=1)
    assert (stats["outcome_ok"], stats["in_flight"], stats["workers"]) == (3, 3, 3)


def test_callers_of_all_workers_wait_since_the_first():
    """The longest wait of any worker is the chute's; a worker where nobody waits says nothing."""
    reports = [
        {"c": ChuteDemand(9, 0, 1, 7)},
        {"c": ChuteDemand(9, 0, 2, 5)},
        {"c": ChuteDemand(9)},
    ]
    assert DemandSum(SystemClock(), lambda: reports).snapshot()["c"].waiting_since_s == 5
