"""Carries bytes between two sockets, both ways, until both have ended or nothing moves for long.

Path: relay (checks, dials) -> here. What comes in on one side is written to the other at once, in
the callback that brought it: no task, no buffer of ours, no copy. A side that takes too little
stops the reading of the other (back-pressure); an end is passed on (half-close). Invariant: a pair
that loses one side otherwise than by an orderly end loses the other, and no side outlives its idle
time.
"""

import asyncio
from collections.abc import Callable
from typing import cast


class Leg(asyncio.Protocol):
    """One side of a pair."""

    def __init__(self, pair: "Pair") -> None:
        self._pair = pair
        self.transport: asyncio.Transport | None = None
        self.other: Leg | None = None
        self.ended = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; a side that came too late is cut."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        if self._pair.over:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Carry on what came; an instance that speaks before it is spoken to is cut."""
        pair = self._pair
        if self.other is None:
            pair.cut()
            return
        pair.moved_at = pair.time()
        self.other.transport.write(data)  # type: ignore[union-attr]  # a pair has both, see `join`

    def eof_received(self) -> bool:
        """Pass an end on; the side stays open for what comes back."""
        self.ended = True
        self._pair.ended()
        return True

    def pause_writing(self) -> None:
        """Stop the other side: this one takes no more now."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the other side go on."""
        self._pair.moved_at = self._pair.time()
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cut the other side too, unless both have ended in good order."""
        self.lost = True
        self._pair.lost()


class Pair:
    """Two legs that belong together.

    Args:
        loop: whose clock and timers are used.
        idle_s: the pair is cut after so long without a byte.
        over: called once, when neither side is left.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, idle_s: float, over: Callable[[], None]
    ) -> None:
        self.time = loop.time
        self.moved_at = loop.time()
        self.outer = Leg(self)
        self.inner = Leg(self)
        self.over = False
        self._loop = loop
        self._idle_s = idle_s
        self._on_over: Callable[[], None] | None = over
        self._timer: asyncio.TimerHandle | None = None

    def join(self) -> None:
        """Begin to carry: both sides are connected."""
        self.outer.other, self.inner.other = self.inner, self.outer
        self.moved_at = self.time()
        self._timer = self._loop.call_later(self._idle_s, self._look)
        if self.outer.ended or self.inner.ended:  # it came between the dial's end and this
            self.ended()

    def ended(self) -> None:
        """Pass on the ends that have come; close when both have, once all is sent."""
        for leg in (self.outer, self.inner):
            to = None if leg.other is None else leg.other.transport
            if leg.ended and to is not None and not to.is_closing():
                to.write_eof()
        if self.outer.ended and self.inner.ended:
            for leg in (self.outer, self.inner):
                assert leg.transport is not None
                leg.transport.close()

    def lost(self) -> None:
        """One side is gone: so is the other, or it may still send what it has."""
        if not (self.outer.ended and self.inner.ended):
            self.cut()
        if self._gone(self.outer) and self._gone(self.inner):
            self._finish()

    def cut(self) -> None:
        """End both sides at once, and any that comes later."""
        self.over = True
        for leg in (self.outer, self.inner):
            if leg.transport is not None and not leg.lost:
                leg.transport.abort()

    @staticmethod
    def _gone(leg: Leg) -> bool:
        return leg.lost or leg.transport is None

    def _look(self) -> None:
        """Cut a pair on which nothing has moved; else look again when it could be so."""
        rest_s = self.moved_at + self._idle_s - self.time()
        if rest_s <= 0:
            self.cut()
            return
        self._timer = self._loop.call_later(rest_s, self._look)

    def _finish(self) -> None:
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._on_over is not None:
            done, self._on_over = self._on_over, None
            done()
