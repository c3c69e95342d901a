"""Opening a sealed connection while its caller leaves, or nobody answers."""

import asyncio

import pytest

from chutes_core.base.errors import TimedOut
from chutes_core.base.loops import Loops
from chutes_core.validator.domain.snapshot import InstanceView
from chutes_core.validator.gateway.plane import link as links

VIEW = InstanceView("00000000-0000-4000-8000-000000000000", "chute", "127.0.0.1", 1, b"t", b"r", 1)


@pytest.fixture
async def dialling(monkeypatch):
    """A dial that ends once this future has a result."""
    answered = asyncio.get_running_loop().create_future()

    async def dial(link, view):
        await answered

    monkeypatch.setattr(links, "_dial", dial)
    return answered


@pytest.mark.interpreted
async def test_a_caller_who_leaves_as_the_connection_opens_has_left(dialling):
    """The cancellation counts although the dial ends in the same turn of the loop."""
    opening = asyncio.ensure_future(links.open_link(VIEW, 60))
    await asyncio.sleep(0)  # it dials
    dialling.set_result(None)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening


@pytest.mark.interpreted
async def test_a_dial_that_does_not_end_is_timed_out(dialling):
    """The error says so; whatever the machine's load, the dial never ends by itself."""
    with pytest.raises(TimedOut) as late:
        await links.open_link(VIEW, 0.01)
    assert late.value.code == "connect_timeout"


async def test_a_loop_whose_call_lost_its_cancellation_ends_all_the_same():
    """Closing waits for the call, and no further one begins."""
    loops, begun, calls = Loops(), asyncio.Event(), []

    async def deaf():
        calls.append(1)
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    loops.every(0, "deaf", deaf)
    await begun.wait()
    await asyncio.wait_for(loops.close(), 60)
    assert calls == [1]
