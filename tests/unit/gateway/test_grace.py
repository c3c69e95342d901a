from chutes_core.base.clock import ManualClock
from chutes_core.validator.gateway.grace import ALLOWED_US, MAX_BUCKETS, Grace


def test_failures_are_free_until_the_hours_allowance_is_used():
    """A chute that answers its work with 500 pays for what is over a minute an hour."""
    clock = ManualClock()
    grace = Grace(clock)
    forgiven = [grace.forgives("u", "c", 20_000_000) for _ in range(5)]
    assert forgiven == [True, True, True, False, False]
    clock.advance(3600)
    assert grace.forgives("u", "c", ALLOWED_US)
    assert not grace.forgives("u", "c", 1)


def test_neither_other_callers_nor_other_chutes_get_around_it():
    """The chute's bucket is for all callers, the caller's for all chutes."""
    grace = Grace(ManualClock())
    assert grace.forgives("u", "c", ALLOWED_US)
    assert not grace.forgives("another", "c", 1)
    assert not grace.forgives("u", "another", 1)
    assert grace.forgives("another", "another", 1)


def test_one_very_long_failure_is_paid_back_by_later_ones():
    """A call's time is known at its end only: the first is free whatever it took, not the next."""
    clock = ManualClock()
    grace = Grace(clock)
    assert grace.forgives("u", "c", 10 * ALLOWED_US)
    clock.advance(8 * 3600)
    assert not grace.forgives("u", "c", 1)
    clock.advance(2 * 3600)
    assert grace.forgives("u", "c", 1)


def test_buckets_of_failures_are_bounded():
    """However many callers fail, memory does not grow."""
    grace = Grace(ManualClock())
    for number in range(MAX_BUCKETS):
        grace.forgives(f"u{number}", f"c{number}", 1)
    assert len(grace._buckets) <= MAX_BUCKETS
