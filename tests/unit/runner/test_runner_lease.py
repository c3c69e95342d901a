"""The lease of an instance and the one decision to end."""

import asyncio

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict
from chutes_core.runner.lifecycle import Ending, ExitCode, Lease, Lifecycle


def test_the_first_lease_lapses_without_start():
    """Until START has come, only the first lease counts."""
    clock = ManualClock()
    lease = Lease(10, clock)
    clock.advance(9.9)
    assert lease.lapsed() == ""
    clock.advance(0.1)
    assert "START" in lease.lapsed()


def test_start_replaces_the_first_lease():
    """After START the launch lease counts, whether shorter or longer."""
    clock = ManualClock()
    lease = Lease(10, clock)
    lease.begin(clock.now_s() + 60)
    clock.advance(59)
    assert lease.lapsed() == ""
    clock.advance(1)
    assert "renewed" in lease.lapsed()


def test_a_renewal_only_prolongs():
    """An earlier time, as of a reordered renewal, changes nothing."""
    clock = ManualClock()
    lease = Lease(10, clock)
    lease.begin(clock.now_s() + 60)
    lease.renew(clock.now_s() + 120)
    lease.renew(clock.now_s() + 30)
    clock.advance(119)
    assert lease.lapsed() == ""


def test_a_renewal_before_start_is_refused():
    """There is nothing to prolong before START."""
    with pytest.raises(Conflict) as caught:
        Lease(10, ManualClock()).renew(2_000_000_000)
    assert caught.value.code == "not_started"


async def test_the_first_decision_to_end_wins():
    """A signal after a stop order does not shorten its grace."""
    lifecycle = Lifecycle(Lease(10, ManualClock()))
    lifecycle.end(Ending(ExitCode.STOPPED, "stop", 60))
    lifecycle.end(Ending(ExitCode.STOPPED, "signal", 1))
    assert (await lifecycle.until_end()).reason == "stop"


async def test_a_lapsed_lease_is_noticed_without_any_message():
    """The watchdog looks at the clock by itself."""
    clock = ManualClock()
    lifecycle = Lifecycle(Lease(10, clock))
    waiting = asyncio.ensure_future(lifecycle.until_end(watch_s=0.001))
    clock.advance(10)
    assert (await waiting).code is ExitCode.LEASE_LAPSED
