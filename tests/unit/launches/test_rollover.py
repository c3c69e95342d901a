"""When instances of an older version go."""

from types import SimpleNamespace

import pytest

from chutes_core.validator.autoscale.wanted import Load
from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.launches.rollover import Rollover, may_go

GRACE_S = 120


def going(old, fresh=Load(), *, wanted=1, waited_s=0, last_end=None):  # noqa: B008 - frozen
    launches = [SimpleNamespace(launch_id=str(number)) for number in range(old)]
    state = Rollover(launches, fresh, wanted, waited_s, last_end)
    return len(may_go(state, grace_s=GRACE_S))


def test_nothing_goes_before_a_new_one_is_active():
    """As long as the new version may still find a GPU of its own, every old instance serves."""
    assert going(3, waited_s=GRACE_S - 1) == 0
    assert going(3, Load(coming=1), waited_s=10 * GRACE_S) == 0


def test_old_instances_leave_one_for_one():
    """With five wanted, each new instance lets one old go, so that capacity never falls."""
    assert going(5, Load(active=1), wanted=5) == 1
    assert going(5, Load(active=5), wanted=5) == 5
    assert going(1, Load(active=1), wanted=1) == 1
    assert going(2, Load(active=1), wanted=5) == 0


def test_one_old_instance_makes_room_after_the_grace_time():
    """Where no GPU is free the old version does not serve for ever: one at a time leaves."""
    assert going(3, waited_s=GRACE_S) == 1
    assert going(3, Load(active=1), wanted=4, waited_s=GRACE_S) == 1


@pytest.mark.parametrize(
    "reason", [Reason.START_FAILED, Reason.START_DEADLINE, Reason.PROBE_FAILED]
)
def test_no_room_is_made_for_a_version_that_does_not_start(reason):
    """A new version that fails at its start takes nothing from the one that works."""
    assert going(1, waited_s=10 * GRACE_S, last_end=reason) == 0
    assert going(1, waited_s=10 * GRACE_S, last_end=Reason.UNREACHABLE) == 1


def test_nobody_calls_and_all_go():
    """A chute that wants no instance keeps none of an older version either."""
    assert going(2, wanted=0) == 2
