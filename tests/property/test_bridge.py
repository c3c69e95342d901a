"""Bytes carried both ways: whole and in order, half-closed for themselves, and never left open."""

import asyncio
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.base.errors import ProtocolError, Unavailable
from chutes_core.wire.bridge import Ended, carry
from chutes_core.wire.stream import ALIVE, END, MAX_PIECE_BYTES, Unpacker, pack

LONG_S = 3600.0


class FakeEnd:
    """Sends pieces (then an end, a loss, or nothing), and takes what it is sent.

    ``takes``: after so many pieces it takes no more until `go_on` is set.
    """

    def __init__(self, pieces=(), *, then="end", takes=None):
        self.pieces = deque(pieces)
        self.then = then
        self.takes = takes
        self.got = []
        self.aborted = False
        self.go_on = asyncio.Event()
        self.full = asyncio.Event()
        self.told = asyncio.Event()
        self.vanish = asyncio.Event()
        self.asked = 0

    async def receive(self):
        self.asked += 1
        await asyncio.sleep(0)
        if self.pieces:
            return self.pieces.popleft()
        if self.then == "end":
            self.then = "nothing"
            return None
        if self.then == "lost":
            raise Unavailable("connection_lost", "gone")
        await self.vanish.wait()
        raise Unavailable("connection_lost", "gone")

    async def send(self, data):
        self.got.append(data)
        if self.takes is not None and len(self.got) >= self.takes:
            self.full.set()
            await self.go_on.wait()

    async def send_end(self):
        self.told.set()

    def abort(self):
        self.aborted = True


pieces = st.lists(st.binary(max_size=8), max_size=8)


@settings(max_examples=60, deadline=None)
@given(pieces, pieces)
def test_each_direction_arrives_whole_and_in_order_and_ends_for_itself(there, back):
    """Whatever is sent either way is what is taken at the other end, and nobody is cut."""

    async def run():
        one, other = FakeEnd(there), FakeEnd(back)
        assert await carry(one, other, idle_s=LONG_S) is Ended.WHOLE
        assert b"".join(other.got) == b"".join(there)
        assert b"".join(one.got) == b"".join(back)
        assert (one.told.is_set(), other.told.is_set()) == (True, True)
        assert (one.aborted, other.aborted) == (False, False)

    asyncio.run(run())


async def test_the_end_of_one_direction_leaves_the_other_open():
    """A half-close is passed on at once, and what comes afterwards the other way still arrives."""
    one, other = FakeEnd([b"ask"]), FakeEnd(then="nothing")
    running = asyncio.ensure_future(carry(one, other, idle_s=LONG_S))
    await other.told.wait()
    assert (running.done(), one.told.is_set()) == (False, False)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert one.aborted
    assert other.aborted


async def test_a_side_that_takes_nothing_is_read_for_no_more():
    """At most one piece is on its way while the other side does not take it."""
    one, other = FakeEnd([b"x"] * 100), FakeEnd(takes=3)
    running = asyncio.ensure_future(carry(one, other, idle_s=LONG_S))
    await other.full.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert one.asked == 3
    other.go_on.set()
    assert await running is Ended.WHOLE
    assert len(other.got) == 100


@pytest.mark.parametrize("who", [0, 1])
async def test_who_vanishes_takes_the_other_along(who):
    """Both ends are cut, and no task of the bridge is left."""
    ends = [FakeEnd([b"a"], then="nothing"), FakeEnd([b"b"], then="nothing")]
    ends[who].then = "lost"
    before = asyncio.all_tasks()
    assert await carry(*ends, idle_s=LONG_S) is Ended.LOST
    assert all(end.aborted for end in ends)
    assert asyncio.all_tasks() == before


async def test_who_vanishes_after_its_end_is_noticed():
    """A caller who half-closed and then went away does not hold the job's connection."""
    one, other = FakeEnd(then="end"), FakeEnd(then="nothing")
    running = asyncio.ensure_future(carry(one, other, idle_s=LONG_S))
    await other.told.wait()
    one.vanish.set()
    assert await running is Ended.LOST
    assert other.aborted


async def test_silence_and_what_it_was_for_end_it():
    """Without a byte it is over after its time; when the run ends, it ends with it."""
    one, other = FakeEnd(then="nothing"), FakeEnd(then="nothing")
    assert await carry(one, other, idle_s=0.01) is Ended.IDLE
    assert one.aborted
    assert other.aborted
    over = asyncio.Event()
    one, other = FakeEnd(then="nothing"), FakeEnd(then="nothing")
    running = asyncio.ensure_future(carry(one, other, idle_s=LONG_S, closed=over.wait()))
    over.set()
    assert await running is Ended.CLOSED
    assert one.aborted
    assert other.aborted


async def test_a_fault_of_ours_is_raised_and_both_ends_are_cut():
    """What is no typed error is never taken for a lost end."""
    one, other = FakeEnd([b"a"], then="nothing"), FakeEnd(then="nothing")

    async def broken(data):
        raise RuntimeError("ours")

    other.send = broken
    with pytest.raises(RuntimeError, match="ours"):
        await carry(one, other, idle_s=LONG_S)
    assert one.aborted
    assert other.aborted


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.just(ALIVE), st.binary(max_size=40).map(pack))), st.data())
def test_pieces_are_the_same_however_they_are_cut(parts, data):
    """Any cut of the bytes gives the same stream, its end, and how often it was asked."""
    whole = b"".join(parts) + END
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    unpacker = Unpacker()
    got = b""
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        assert not unpacker.ended or begin == end
        got += unpacker.feed(whole[begin:end])
    plain = b"".join(part[4:] for part in parts if part != ALIVE)
    assert (got, unpacker.ended, unpacker.asked) == (plain, True, parts.count(ALIVE))


def test_what_is_no_stream_is_refused():
    """Too long a piece, and anything but ALIVE behind the end."""
    with pytest.raises(ProtocolError, match="no piece"):
        Unpacker().feed((MAX_PIECE_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(ProtocolError, match="no piece"):
        Unpacker().feed(END + pack(b"more"))
    late = Unpacker()
    assert late.feed(END + ALIVE) == b""
    assert (late.ended, late.asked) == (True, 1)
    big = bytes(3 * MAX_PIECE_BYTES + 1)
    assert Unpacker().feed(pack(big)) == big
