"""What the relay's pairs do about time and ends, on a clock and transports of the test's."""

import asyncio

from chutes_core.miner.carrier import Pair
from chutes_core.miner.relay import Relay, _Caller
from chutes_core.wire.sealing import PROVEN, Preamble

IDLE_S = 100.0
LAUNCH = "11111111-2222-3333-4444-555555555555"


class Loop:
    """A loop whose timers fire when the test says what time it is."""

    def __init__(self):
        self.now, self.timers = 0.0, []

    def time(self):
        return self.now

    def call_later(self, delay_s, call, *facts):
        timer = Timer(self.now + delay_s, lambda: call(*facts))
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.call()


class Timer:
    def __init__(self, at, call):
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self):
        self.cancelled = True


class Transport:
    """Keeps what it is told; it tells its leg of an end at once."""

    def __init__(self, leg):
        self.leg, self.said, self.written = leg, [], b""
        leg.connection_made(self)

    def write(self, data):
        self.written += data

    def is_closing(self):
        return "abort" in self.said or "close" in self.said

    def __getattr__(self, name):
        def tell(*_):
            self.said.append(name)
            if name == "abort":
                self.leg.connection_lost(None)

        return tell


def pair():
    loop, over = Loop(), []
    made = Pair(loop, IDLE_S, lambda: over.append(True))
    outer, inner = Transport(made.outer), Transport(made.inner)
    made.join()
    return loop, made, outer, inner, over


def test_a_pair_on_which_nothing_moves_is_cut_after_its_idle_time():
    """Not before, and whatever moves on either side begins the time anew."""
    loop, made, outer, inner, over = pair()
    loop.advance(IDLE_S - 1)
    made.outer.data_received(b"to the instance")
    assert inner.written == b"to the instance"
    loop.advance(IDLE_S - 1)
    made.inner.data_received(b"back")
    assert outer.written == b"back"
    loop.advance(IDLE_S - 1)
    assert over == []
    loop.advance(1)
    assert over == [True]
    assert outer.said == inner.said == ["abort"]


def test_who_takes_too_little_stops_the_other_side_and_is_not_idle_once_it_goes_on():
    """Back-pressure in both directions."""
    loop, made, outer, inner, over = pair()
    made.inner.pause_writing()
    assert outer.said == ["pause_reading"]
    loop.advance(IDLE_S - 1)
    made.inner.resume_writing()
    assert outer.said == ["pause_reading", "resume_reading"]
    loop.advance(IDLE_S - 1)
    made.outer.pause_writing()
    assert inner.said == ["pause_reading"]
    assert over == []


def test_ends_are_passed_on_and_both_sides_close_once_all_is_sent():
    """In good order nothing is cut: each side sends what it still has."""
    loop, made, outer, inner, over = pair()
    assert made.outer.eof_received()
    assert inner.said == ["write_eof"]
    made.inner.data_received(b"still")
    assert outer.written == b"still"
    assert made.inner.eof_received()
    assert outer.said == ["write_eof", "close"]
    assert inner.said[-1] == "close"
    made.outer.connection_lost(None)
    assert "abort" not in inner.said
    assert over == []
    made.inner.connection_lost(None)
    assert over == [True]
    assert all(timer.cancelled for timer in loop.timers)


def test_a_side_that_breaks_takes_the_other_with_it_and_so_does_one_that_comes_too_late():
    """An instance that is connected after its caller has gone is cut at once."""
    loop, made, outer, _, over = pair()
    made.inner.connection_lost(ConnectionResetError())
    assert outer.said == ["abort"]
    assert over == [True]
    late = Pair(loop, IDLE_S, lambda: None)
    caller = Transport(late.outer)
    late.outer.connection_lost(None)
    assert Transport(late.inner).said == ["abort"]
    assert caller.said == []


def test_an_instance_that_speaks_first_is_cut_and_one_that_ended_first_is_heard():
    """Both can come between the dial's end and the joining of the two."""
    loop = Loop()
    early = Pair(loop, IDLE_S, lambda: None)
    outer, inner = Transport(early.outer), Transport(early.inner)
    early.inner.data_received(b"hello?")
    assert outer.said == inner.said == ["abort"]
    ended = Pair(loop, IDLE_S, lambda: None)
    outer, inner = Transport(ended.outer), Transport(ended.inner)
    ended.inner.eof_received()
    ended.join()
    assert (outer.said, inner.said) == (["write_eof"], [])


class Full(Transport):
    """Takes no more from its first byte on."""

    def write(self, data):
        super().write(data)
        self.leg.pause_writing()


class Dialling(Loop):
    """Connects at once to an instance that takes nothing."""

    def create_task(self, work):
        return asyncio.ensure_future(work)

    async def create_connection(self, factory, host, port):
        self.inner = Full(factory())


async def test_an_instance_that_is_full_at_once_stops_its_caller():
    """What came with the preamble may be more than it takes; the caller is read no further."""
    loop, relay = Dialling(), Relay()
    relay.register(LAUNCH, ticket=b"t" * 32, port=1)
    caller = _Caller(relay, loop)
    outer = Transport(caller)
    hello = Preamble.build(ticket=b"t" * 32, launch_id=LAUNCH, generation=PROVEN).to_bytes()
    caller.data_received(hello + b"much")
    await caller.dialling
    assert loop.inner.written == hello + b"much"
    assert outer.said[-1] == "pause_reading"
