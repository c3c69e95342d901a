"""From demand to the wanted number of instances."""

import pytest

from chutes_core.validator.autoscale.wanted import Load, bounty, target
from chutes_core.validator.domain.chutes import Chute, Selector
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.wire.control import MAX_BOUNTY

NOW_S = 1_700_000_000


def chute(**changes):
    fields = {
        "chute_id": "c",
        "version": "v",
        "user_id": "u",
        "username": "bob",
        "name": "echo",
        "slug": "bob-echo",
        "tagline": "",
        "readme": "",
        "public": False,
        "standard_template": None,
        "image_id": "i",
        "filename": "echo.py",
        "ref_str": "echo:chute",
        "code": "",
        "selector": Selector(),
        "cords": (),
        "concurrency": 4,
        "max_instances": 3,
        "scaling_threshold_percent": 75,
        "shutdown_after_s": 300,
        "created_at_s": NOW_S - 1000,
        "updated_at_s": NOW_S - 1000,
    }
    return Chute(**{**fields, **changes})


def test_a_freshly_deployed_chute_wants_one_instance():
    """Nobody has called yet, but somebody is about to."""
    assert target(chute(updated_at_s=NOW_S - 10), ChuteDemand(), Load(), now_s=NOW_S) == 1


def test_a_chute_that_nobody_called_for_its_shutdown_time_wants_none():
    """Scale to zero, to the second."""
    demand = ChuteDemand(last_call_s=NOW_S - 300)
    assert target(chute(), demand, Load(active=1), now_s=NOW_S) == 0
    assert target(chute(), demand, Load(active=1), now_s=NOW_S - 1) == 1


def test_a_long_call_keeps_its_instance():
    """A call in flight counts, however long ago it began."""
    demand = ChuteDemand(last_call_s=NOW_S - 3000, in_flight=1)
    assert target(chute(), demand, Load(active=1), now_s=NOW_S) == 1


@pytest.mark.parametrize(("callers", "wanted"), [(3, 1), (4, 2), (6, 2), (7, 3), (1000, 3)])
def test_callers_above_the_threshold_want_more_instances_up_to_the_maximum(callers, wanted):
    """Four slots at 75 %: the fourth caller asks for a second instance."""
    demand = ChuteDemand(last_call_s=NOW_S, in_flight=callers - 1, waiting=1)
    assert target(chute(), demand, Load(active=1), now_s=NOW_S) == wanted


def test_a_cold_chute_starts_with_one_instance_whatever_the_queue():
    """How fast it answers is not known before one instance runs."""
    demand = ChuteDemand(last_call_s=NOW_S, waiting=100)
    assert target(chute(), demand, Load(coming=1), now_s=NOW_S) == 1


def test_a_deleted_chute_wants_none():
    """Even while callers are still in flight."""
    gone = chute(deleted_at_s=NOW_S)
    assert target(gone, ChuteDemand(last_call_s=NOW_S, in_flight=2), Load(1), now_s=NOW_S) == 0


@pytest.mark.parametrize(
    ("waited_s", "wanted"), [(0, 1), (4, 1), (5, 2), (9, 2), (10, 3), (300, 7), (10**6, MAX_BOUNTY)]
)
def test_a_bounty_grows_with_the_wait(waited_s, wanted):
    """It begins with the first caller who waits and is one more each time the wait has doubled."""
    demand = ChuteDemand(NOW_S, waiting=1, waiting_since_s=NOW_S - waited_s)
    assert bounty(demand, now_s=NOW_S) == wanted


def test_nobody_who_waits_is_no_bounty():
    """Calls in flight have an instance already; a clock that went back does no harm."""
    assert bounty(ChuteDemand(NOW_S, in_flight=5), now_s=NOW_S) == 0
    late = ChuteDemand(NOW_S, waiting=1, waiting_since_s=NOW_S + 50)
    assert bounty(late, now_s=NOW_S) == 1
