"""What workers report is added up, and outlives them."""

from chutes_core.base.clock import SystemClock
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.validator.gateway.workers.sums import DemandSum, metrics_of


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


def test_figures_are_shown_as_prometheus_reads_them():
    """Counters by outcome, gauges of the moment."""
    shown = metrics_of({"outcome_ok": 3, "in_flight": 2, "workers": 4, "worker_deaths": 1})
    assert 'chutes_gateway_calls_total{outcome="ok"} 3\n' in shown
    assert "chutes_gateway_calls_in_flight 2\n" in shown
    assert "chutes_gateway_worker_deaths_total 1\n" in shown


def test_callers_of_all_workers_wait_since_the_first():
    """The longest wait of any worker is the chute's; a worker where nobody waits says nothing."""
    reports = [
        {"c": ChuteDemand(9, 0, 1, 7)},
        {"c": ChuteDemand(9, 0, 2, 5)},
        {"c": ChuteDemand(9)},
    ]
    assert DemandSum(SystemClock(), lambda: reports).snapshot()["c"].waiting_since_s == 5
