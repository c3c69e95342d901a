import random
from collections import Counter

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.validator.domain.snapshot import InstanceView
from chutes_core.validator.gateway.breaker import FAILURES_TO_OPEN, Breaker
from chutes_core.validator.gateway.routing import NoSlot, Route, Router


def view(name: str, concurrency: int = 2) -> InstanceView:
    return InstanceView(name, "c", "h", 1, b"t", b"r", concurrency)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def router(clock: ManualClock) -> Router:
    return Router(clock=clock, rng=random.Random(7))


def chosen(router: Router, *excluded: str) -> Route:
    route = router.choose("c", excluded)
    assert isinstance(route, Route)
    return route


def test_a_chute_without_instances_is_cold(router: Router):
    """No instance at all, or none that was not tried, is COLD."""
    assert router.choose("c") is NoSlot.COLD
    router.swap({"c": (view("a"),)})
    assert router.choose("c", {"a"}) is NoSlot.COLD


def test_slots_are_counted_and_given_back(router: Router):
    """In flight rises and falls with the block, also when it raises; none is given above."""
    router.swap({"c": (view("a", 1),)})
    route = chosen(router)

    def call() -> None:
        with router.using(route):
            assert router.choose("c") is NoSlot.FULL
            raise KeyError

    with pytest.raises(KeyError):
        call()
    assert router.in_flight() == 0
    assert chosen(router) is route


def test_what_is_known_survives_a_swap(router: Router):
    """An instance that stays keeps its count and its history; one that comes is new."""
    router.swap({"c": (view("a"),)})
    route = chosen(router)
    route.succeeded(5_000)
    with router.using(route):
        router.swap({"c": (view("a", 3), view("b"))})
        assert router.in_flight() == 1
    again = chosen(router, "b")
    assert again is route
    assert (again.latency_us, again.view.concurrency) == (5_000, 3)


def test_the_less_loaded_of_two_is_chosen(router: Router):
    """With two instances the choice is always the one with fewer calls per slot."""
    router.swap({"c": (view("a"), view("b"))})
    first = chosen(router)
    with router.using(first):
        assert all(chosen(router) is not first for _ in range(20))


def test_the_faster_of_two_is_chosen(router: Router):
    """At equal load the one with the shorter time to the first byte wins."""
    router.swap({"c": (view("a"), view("b"))})
    slow, fast = chosen(router, "b"), chosen(router, "a")
    slow.succeeded(900_000)
    fast.succeeded(100_000)
    assert all(chosen(router) is fast for _ in range(20))


def test_one_that_fails_is_avoided(router: Router, clock: ManualClock):
    """A failure makes an instance a worse choice before its breaker opens."""
    router.swap({"c": (view("a"), view("b"))})
    bad = chosen(router, "b")
    bad.failed(clock.monotonic_us())
    assert all(chosen(router) is not bad for _ in range(20))


def test_all_instances_get_calls(router: Router):
    """Random pairs spread idle instances' calls over all of them."""
    router.swap({"c": tuple(view(name) for name in "abcdef")})
    counts = Counter(chosen(router).view.launch_id for _ in range(300))
    assert set(counts) == set("abcdef")


def test_broken_instances_are_told_from_full_ones(router: Router, clock: ManualClock):
    """When every breaker is open the answer is BROKEN, until the pause is over."""
    router.swap({"c": (view("a"),)})
    route = chosen(router)
    for _ in range(FAILURES_TO_OPEN):
        route.failed(clock.monotonic_us())
    assert router.choose("c") is NoSlot.BROKEN
    clock.advance(3)
    assert router.choose("c") is route
    with router.using(route):
        assert router.choose("c") is NoSlot.BROKEN
        route.succeeded(1)
    assert router.choose("c") is route


def test_a_breaker_pauses_longer_each_time():
    """A failed trial doubles the pause; a good one resets it."""
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        assert breaker.allows(0)
        breaker.failed(0)
    assert not breaker.allows(1_999_999)
    assert breaker.allows(2_000_000)
    breaker.begin()
    assert not breaker.allows(2_000_000)
    breaker.failed(2_000_000)
    breaker.end()
    assert not breaker.allows(5_999_999)
    assert breaker.allows(6_000_000)
    breaker.succeeded()
    assert breaker.allows(0)


def test_a_trial_that_proves_nothing_leaves_the_next_one_free():
    """A trial that the caller cut short does not keep the breaker half-open for ever."""
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(0)
    breaker.begin()
    breaker.end()
    assert breaker.allows(2_000_000)
