"""Carries bytes both ways between two ends until both directions have ended, or one end is lost.

Path: runner (sealed connection and a job's socket), validator (caller and sealed connection), CLI
(a local socket and the validator). Invariants: a direction reads on only once what it read has been
taken, so neither end's slowness costs memory; the end of one direction leaves the other open; when
`carry` returns, nothing of it runs any more, and unless both directions ended, both ends are cut.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from enum import Enum
from typing import Any, Protocol

from chutes_core.base.errors import ChutesError, ProtocolError

PIECE_BYTES = 64 * 1024
CLOSE_S = 5.0


class End(Protocol):
    """One side of a bridge."""

    async def receive(self) -> bytes | None:
        """Return the next piece; None once, where this side sends no more.

        Asked again after that it never returns, and raises when the side is lost.

        Raises:
            ChutesError: the side is lost, or broke its protocol.
        """
        ...

    async def send(self, data: bytes) -> None:
        """Send a piece, waiting while the side takes none.

        Raises:
            ChutesError: the side is lost.
        """
        ...

    async def send_end(self) -> None:
        """Say that nothing more comes; the side may go on sending."""
        ...

    def abort(self) -> None:
        """Cut it at once; done twice it is done once."""
        ...


class Ended(Enum):
    """Why a bridge is over."""

    WHOLE = "whole"  # both directions came to their ends
    LOST = "lost"  # one end went away, or broke its protocol
    IDLE = "idle"  # no byte moved for too long
    CLOSED = "closed"  # what it was for is over


async def carry(
    one: End, other: End, *, idle_s: float, closed: Awaitable[object] | None = None
) -> Ended:
    """Carry bytes until the end and return why it ended.

    Args:
        one: a side; unless the answer is WHOLE it is cut.
        other: the other side, likewise.
        idle_s: without a byte for so long, in either direction, it is over.
        closed: when this is done, so is the bridge; it is cancelled at the end.
    """
    bridge = _Bridge(one, other, idle_s)
    try:
        ended = await bridge.run(closed)
    except BaseException:
        one.abort()
        other.abort()
        raise
    if ended is not Ended.WHOLE:
        one.abort()
        other.abort()
    return ended


class _Bridge:
    def __init__(self, one: End, other: End, idle_s: float) -> None:
        self._ends = one, other
        self._idle_s = idle_s
        self._now = asyncio.get_running_loop().time
        self._moved_at = self._now()
        self._open = 2  # directions whose source has not ended
        self._unsaid = 2  # directions whose sink was not told yet
        self._whole = asyncio.Event()

    async def run(self, closed: Awaitable[object] | None) -> Ended:
        one, other = self._ends
        whole = asyncio.ensure_future(self._whole.wait())
        pumps = [asyncio.ensure_future(self._pump(*pair)) for pair in ((one, other), (other, one))]
        until: list[asyncio.Future[Any]] = [] if closed is None else [asyncio.ensure_future(closed)]
        tasks: list[asyncio.Future[Any]] = [whole, *pumps, *until]
        try:
            return await self._watch(tasks, until)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(
        self, tasks: "Sequence[asyncio.Future[Any]]", until: "Sequence[asyncio.Future[Any]]"
    ) -> Ended:
        while True:
            left_s = self._moved_at + self._idle_s - self._now()
            if left_s <= 0:
                return Ended.IDLE
            done, _ = await asyncio.wait(tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            # Who has seen both ends may close before the last of them counts as sent here.
            if self._whole.is_set() or (done and not self._open):
                return Ended.WHOLE
            if any(task in done for task in until):
                return Ended.CLOSED
            if done:
                self._raise_unless_lost(done)
                return Ended.LOST

    @staticmethod
    def _raise_unless_lost(done: "set[asyncio.Future[Any]]") -> None:
        """A lost end is an answer; what is no typed error is a fault of ours."""
        for task in done:
            error = task.exception()
            if error is not None and not isinstance(error, ChutesError):
                raise error

    async def _pump(self, source: End, sink: End) -> None:
        while (piece := await source.receive()) is not None:
            self._moved_at = self._now()
            if piece:
                await sink.send(piece)
                self._moved_at = self._now()
        self._open -= 1
        await sink.send_end()
        self._moved_at = self._now()
        self._unsaid -= 1
        if not self._unsaid:
            self._whole.set()
        await source.receive()
        raise ProtocolError("unexpected_frame", "bytes after the end of a direction")


class SocketEnd:
    """A plain TCP connection as an end.

    Who has closed its connection takes nothing more, but what it sent before still counts: so what
    is sent to it then is dropped, and only its own end ends the bridge.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ended = False  # it sends no more
        self._deaf = False  # it takes no more

    async def receive(self) -> bytes | None:
        """Return what came; None at the connection's end."""
        if self._ended:
            await asyncio.Event().wait()
        try:
            data = await self._reader.read(PIECE_BYTES)
        except OSError as error:
            raise _lost() from error
        if data:
            return data
        self._ended = True
        return None

    async def send(self, data: bytes) -> None:
        """Write it, unless nobody takes it any more."""
        if not self._deaf:
            try:
                self._writer.write(data)
                await self._writer.drain()
            except OSError:
                self._deaf = True
        if self._deaf and self._ended:
            raise _lost()

    async def send_end(self) -> None:
        """Close the writing side."""
        with contextlib.suppress(OSError):
            if not self._deaf and self._writer.can_write_eof():
                self._writer.write_eof()

    def abort(self) -> None:
        """Cut the connection."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close after what was sent has left; one whose peer takes nothing is cut in a moment."""
        cutting = asyncio.get_running_loop().call_later(CLOSE_S, self.abort)
        try:
            self._writer.close()
            await self._writer.wait_closed()
        except OSError:
            return
        finally:
            cutting.cancel()


def _lost() -> ChutesError:
    return ProtocolError("connection_lost", "the connection was cut")
