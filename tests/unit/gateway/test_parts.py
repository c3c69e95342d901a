import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.base import errors
from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import ChutesError, Exhausted, Invalid, ProtocolError
from chutes_core.validator.domain.statuses import status_of
from chutes_core.validator.gateway.buckets import MAX_BUCKETS, Buckets, RateLimited
from chutes_core.validator.gateway.demand import Demand
from chutes_core.validator.gateway.headers import call_head, to_caller, to_instance
from chutes_core.validator.gateway.queue import ColdQueue


def test_every_family_of_errors_has_a_status():
    """No typed error falls through to 500."""
    families = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ChutesError) and kind is not ChutesError
    ]
    assert len(families) >= 13
    for family in families:
        assert 400 <= status_of(family("code", "message")) < 600
        assert status_of(family("code", "message")) != 500
    assert status_of(ChutesError("code", "message")) == 500


def test_a_bucket_lets_the_burst_and_then_the_rate_through():
    """After the burst one call passes each 1/rate seconds; Retry-After says when."""
    clock = ManualClock()
    buckets = Buckets(per_s=2, burst=3, clock=clock)
    for _ in range(3):
        buckets.take("k")
    with pytest.raises(Exhausted) as caught:
        buckets.take("k")
    assert caught.value.retry_after_s == 1
    clock.advance(0.5)
    buckets.take("k")
    with pytest.raises(Exhausted):
        buckets.take("k")
    clock.advance(3600)
    for _ in range(3):
        buckets.take("k")
    with pytest.raises(Exhausted):
        buckets.take("k")


def test_a_bucket_tells_where_its_key_stands():
    """What `take` returns is what is left afterwards, and when all of it is back."""
    clock = ManualClock()
    buckets = Buckets(per_s=2, burst=3, clock=clock)
    assert buckets.take("k") == (3, 2, 1)
    buckets.take("k")
    assert buckets.take("k") == (3, 0, 2)
    clock.advance(10)
    assert buckets.take("k") == (3, 2, 1)


def test_the_narrower_limit_is_the_one_that_is_told():
    """A key's own limit per minute is told where less is left of it than of the house's."""
    buckets = Buckets(per_s=50, burst=3, clock=ManualClock())
    assert buckets.take("k", calls_per_minute=2) == (2, 1, 30)
    assert buckets.take("k", calls_per_minute=2) == (2, 0, 60)
    with pytest.raises(RateLimited) as caught:
        buckets.take("k", calls_per_minute=2)
    assert caught.value.standing == (2, 0, 60)
    assert caught.value.retry_after_s == 30
    assert buckets.take("l", calls_per_minute=600) == (3, 2, 1)


@settings(deadline=None, max_examples=50)
@given(
    per_s=st.integers(1, 100),
    burst=st.integers(1, 50),
    own=st.none() | st.integers(1, 500),
    waits=st.lists(st.floats(0, 3), max_size=60),
)
def test_who_waits_as_long_as_is_said_passes(
    per_s: int, burst: int, own: int | None, waits: list[float]
):
    """After Retry-After one call passes, and after the reset the whole burst does."""
    clock = ManualClock()
    buckets = Buckets(per_s=per_s, burst=burst, clock=clock)
    for wait in waits:
        clock.advance(wait)
        try:
            standing = buckets.take("k", calls_per_minute=own)
        except RateLimited as refused:
            clock.advance(refused.retry_after_s)
            standing = buckets.take("k", calls_per_minute=own)
        assert 0 <= standing.remaining < standing.limit
    clock.advance(60)
    standing = buckets.take("k", calls_per_minute=own)
    clock.advance(standing.reset_s)
    for _ in range(standing.limit):
        buckets.take("k", calls_per_minute=own)


def test_buckets_stay_bounded():
    """However many keys call, memory is bounded, and a used-up bucket is the last to go."""
    buckets = Buckets(per_s=1, burst=2, clock=ManualClock())
    for number in range(3 * MAX_BUCKETS):
        buckets.take(str(number))
        assert len(buckets._buckets) <= MAX_BUCKETS


def test_headers_named_by_connection_are_dropped():
    """Connection names further hop-by-hop headers."""
    kept = to_instance([(b"Connection", b"X-Own, close"), (b"x-own", b"1"), (b"Accept", b"*/*")])
    assert kept == (("accept", "*/*"),)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0b", "a\x7f"])
def test_a_value_with_control_characters_is_refused(value: str):
    """An instance cannot smuggle a line break into a response's head."""
    with pytest.raises(ProtocolError):
        to_caller([("x-a", value)])


def test_a_head_too_large_to_pass_on_is_refused():
    """Too many headers are 431, too long a query 414."""
    parts = {"invocation_id": "6a1c5b9e-6b7f-4f55-9b54-0c3a4a5e7a10", "method": "GET"}
    many = [(b"x-%d" % number, b"1") for number in range(99)]
    with pytest.raises(Invalid) as caught:
        call_head(**parts, path="/a", query=b"", headers=many, length=0)
    assert status_of(caught.value) == 431
    with pytest.raises(Invalid) as caught:
        call_head(**parts, path="/a", query=b"", headers=[(b"x", bytes(65536))], length=0)
    assert status_of(caught.value) == 431
    with pytest.raises(Invalid) as caught:
        call_head(**parts, path="/a", query=b"a" * 8193, headers=[], length=0)
    assert status_of(caught.value) == 414


async def test_the_longest_waiting_are_woken_first():
    """wake(n) wakes the n callers at the head, no more."""
    queue = ColdQueue(per_chute=10, in_all=10)
    order: list[int] = []

    async def caller(number: int) -> None:
        assert await queue.wait("c", 60)
        order.append(number)

    callers = [asyncio.ensure_future(caller(number)) for number in range(3)]
    await asyncio.sleep(0)
    queue.wake("c", 2)
    await asyncio.wait(callers[:2])
    assert (order, queue.size) == ([0, 1], 1)
    queue.wake("other", 1)
    queue.wake("c", 5)
    await asyncio.wait(callers)
    assert (queue.size, queue.waiting_for()) == (0, ())


async def test_the_queue_is_bounded_for_each_chute_and_in_all():
    """One too many is refused, and a deadline frees the place."""
    queue = ColdQueue(per_chute=1, in_all=2)
    waiting = [asyncio.ensure_future(queue.wait(chute, 60)) for chute in ("a", "b")]
    await asyncio.sleep(0)
    for chute in ("a", "c"):
        with pytest.raises(Exhausted, match="queue_full"):
            await queue.wait(chute, 60)
    queue.wake("a", 1)
    assert await waiting[0]
    assert await queue.wait("a", 0.0) is False
    waiting[1].cancel()
    await asyncio.wait(waiting)
    assert queue.size == 0


async def test_who_waits_for_several_chutes_waits_once_and_is_woken_by_any():
    """An alias' caller stands in the queue of each of its chutes, and leaves all of them."""
    queue = ColdQueue(per_chute=2, in_all=2)
    waiting = asyncio.ensure_future(queue.wait("a", 60, "b"))
    await asyncio.sleep(0)
    assert queue.size == 1
    assert set(queue.waiting_for()) == {"a", "b"}
    queue.wake("b", 1)
    assert await waiting
    assert (queue.size, queue.waiting_for()) == (0, ())


async def test_a_chute_that_calls_pass_over_is_wanted_hot():
    """A cold chute whose calls another one answers is demanded, and told once a second."""
    clock = ManualClock(100)
    demand = Demand(clock)
    demand.missed("c")
    assert demand.snapshot()["c"].last_call_s == 100
    assert await demand.news.wait(0)
    demand.missed("c")
    assert not await demand.news.wait(0)
    clock.advance(1)
    demand.missed("c")
    assert await demand.news.wait(0)
    assert demand.snapshot()["c"].last_call_s == 101


def test_demand_counts_a_caller_once():
    """A waiting caller is not in flight; a chute that is gone is forgotten when it is quiet."""
    clock = ManualClock(100)
    demand = Demand(clock)
    with demand.calling("c"):
        with demand.waiting("c"):
            now = demand.snapshot()["c"]
            assert (now.in_flight, now.waiting, now.last_call_s) == (0, 1, 100)
            demand.keep(())
        assert demand.snapshot()["c"].in_flight == 1
    demand.keep(())
    assert demand.snapshot() == {}
    demand.touch("c")
    assert demand.snapshot()["c"].last_call_s == 100


def test_callers_who_wait_in_vain_have_waited_since_the_first_of_them():
    """One after another they wait since the first; after a minute without any it begins anew."""
    clock = ManualClock(100)
    demand = Demand(clock)

    def since():
        return demand.snapshot()["c"].waiting_since_s

    with demand.calling("c"):
        assert since() == 0
        with demand.waiting("c"):
            clock.advance(30)
            assert since() == 100
        clock.advance(60)
        assert since() == 0
        with demand.waiting("c"):
            assert since() == 100
        clock.advance(61)
        with demand.waiting("c"):
            assert since() == 251
