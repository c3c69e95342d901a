"""Idle sealed connections: so many of an instance, for so long."""

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.validator.domain.snapshot import InstanceView
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.gateway.pool import Pool

VIEW = InstanceView("launch", "chute", "127.0.0.1", 1, b"t", b"r")
LIMITS = GatewayLimits()


class Connection:
    usable = True

    def __init__(self):
        self.aborted = False

    def abort(self):
        self.aborted = True


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def pool(clock):
    async def opening(view, timeout_s):
        return Connection()

    pool = Pool(
        clock=clock,
        connect_timeout_s=LIMITS.connect_timeout_s,
        max_idle_per_instance=LIMITS.max_idle_per_instance,
        idle_s=LIMITS.idle_connection_s,
        opening=opening,
    )
    pool.swap(["launch"])
    return pool


async def test_of_too_many_idle_connections_the_oldest_is_closed(pool):
    """As many as the bound stay for the next calls."""
    borrowed = [await pool.borrow(VIEW) for _ in range(LIMITS.max_idle_per_instance + 1)]
    for one in borrowed:
        pool.give_back(one)
    assert [one.connection.aborted for one in borrowed] == [True] + [False] * (len(borrowed) - 1)
    again = [await pool.borrow(VIEW) for _ in borrowed]
    assert [one.reused for one in again] == [True] * (len(borrowed) - 1) + [False]


async def test_a_connection_that_idles_too_long_is_closed(pool, clock):
    """By the next call that would use it, and by the next snapshot."""
    for by_call in (True, False):
        borrowed = await pool.borrow(VIEW, fresh=True)
        pool.give_back(borrowed)
        clock.advance(LIMITS.idle_connection_s)
        assert pool.idle("launch") is borrowed
        assert borrowed.reused
        pool.give_back(borrowed)
        clock.advance(LIMITS.idle_connection_s + 1)
        if by_call:
            assert pool.idle("launch") is None
        else:
            pool.swap(["launch"])
        assert borrowed.connection.aborted
