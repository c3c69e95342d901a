"""What is wrong is told by code, from the first failure to the first success after it."""

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Unavailable
from chutes_core.base.loops import Loops
from chutes_core.validator.health import Health


def discarded():
    """Return what the payments loop raises on a node without old state."""
    return Unavailable("state_discarded", "ws://secret:key@node has no block 7", hint="archive_url")


async def test_a_loops_problem_lasts_until_it_does_well_again():
    """The code is there, the message (which may hold a node's key) is not."""
    clock = ManualClock(100)
    health = Health(clock)
    loops = Loops(health.note)

    async def bad():
        raise discarded()

    async def odd():
        raise KeyError("x")

    await loops.once("payments", bad)
    clock.advance(60)
    await loops.once("payments", bad)
    await loops.once("weights", odd)
    view = health.view()
    assert view["ok"] is False
    assert view["problems"] == [
        {
            "source": "payments",
            "code": "state_discarded",
            "hint": "archive_url",
            "since_s": 100,
            "times": 2,
        },
        {
            "source": "weights",
            "code": "internal",
            "hint": "see the log: this is a bug",
            "since_s": 160,
            "times": 1,
        },
    ]
    assert "secret" not in str(view) + health.metrics()

    async def good():
        return None

    await loops.once("payments", good)
    await loops.once("weights", good)
    assert health.view() == {"ok": True, "problems": [], "figures": {}}


def test_metrics_are_in_prometheus_text():
    """Health, problems by code, failures by loop, figures."""
    health = Health(ManualClock(1))
    health.note("payments", discarded())
    health.figure("coldkey_free_rao", 5)
    assert health.metrics().splitlines() == [
        "# TYPE chutes_validator_healthy gauge",
        "chutes_validator_healthy 0",
        "# TYPE chutes_validator_problem gauge",
        'chutes_validator_problem{source="payments",code="state_discarded"} 1',
        "# TYPE chutes_validator_loop_failures_total counter",
        'chutes_validator_loop_failures_total{loop="payments"} 1',
        "# TYPE chutes_validator_coldkey_free_rao gauge",
        "chutes_validator_coldkey_free_rao 5",
    ]
    health.note("payments", None)
    assert "chutes_validator_healthy 1" in health.metrics()
