"""One sealed connection as the session uses it: look ahead by one frame, send from several tasks.

Path: server accepts -> Link -> session reads frames, proof and executor write theirs.
Invariant: at most one receive runs at a time and is never cancelled half-way, so watching for the
peer's end while a call runs loses no frame; a peer that stops reading for WRITE_STALL_S
(CLOSE_STALL_S at the end) is cut.
"""

import asyncio

from chutes_core.base.errors import ChutesError, ProtocolError, TimedOut, Unavailable
from chutes_core.wire.connection import SealedConnection
from chutes_core.wire.frames import Frame, FrameKind
from chutes_core.wire.launch import FrameError
from chutes_core.wire.model import Message

WRITE_STALL_S = 120.0
CLOSE_STALL_S = 2.0
MAX_CODE = 64
MAX_MESSAGE = 4000
MAX_HINT = 1000


class Link:
    """The instance's end of one connection.

    Args:
        connection: just accepted.
        first_frame_s: the peer proves that it holds the root within this time, by one frame.
    """

    def __init__(self, connection: SealedConnection, first_frame_s: float) -> None:
        self._connection = connection
        self._timeout_s: float | None = first_frame_s
        self._ahead: asyncio.Task[Frame | None] | None = None
        self._sending = asyncio.Lock()

    async def peek(self) -> Frame | None:
        """Return the next frame without taking it; None when the peer has closed.

        Raises:
            ProtocolError: the peer sent what does not authenticate.
        """
        if self._ahead is None:
            self._ahead = asyncio.ensure_future(self._receive())
        return await asyncio.shield(self._ahead)

    async def next_frame(self) -> Frame | None:
        """Return and take the next frame; None when the peer has closed.

        Raises:
            ProtocolError: the peer sent what does not authenticate.
        """
        frame = await self.peek()
        if frame is not None:
            self._ahead = None
        return frame

    async def has_end(self) -> bool:
        """Tell whether an END has arrived behind the frame just taken; never waits for it."""
        if self._ahead is None:
            self._ahead = asyncio.ensure_future(self._receive())
        await asyncio.sleep(0)  # one turn: enough for a frame that is already here
        if not self._ahead.done() or self._ahead.exception() is not None:
            return False
        frame = self._ahead.result()
        return frame is not None and frame.kind is FrameKind.END

    async def send(self, *frames: tuple[FrameKind, bytes]) -> None:
        """Send frames, in one write.

        Raises:
            Unavailable: the peer is gone, or has stopped reading.
        """
        async with self._sending:
            stalled = asyncio.get_running_loop().call_later(WRITE_STALL_S, self.abort)
            try:
                await self._connection.send_together(*frames)
            finally:
                stalled.cancel()

    async def send_message(self, kind: FrameKind, message: Message) -> None:
        """Send one frame with a model's JSON."""
        await self.send((kind, message.model_dump_json().encode()))

    async def send_error(self, error: ChutesError) -> None:
        """Send an ERROR frame."""
        body = FrameError(
            code=error.code[:MAX_CODE],
            message=error.message[-MAX_MESSAGE:],
            hint=error.hint[:MAX_HINT],
        )
        await self.send_message(FrameKind.ERROR, body)

    def abort(self) -> None:
        """Cut the connection."""
        self._connection.abort()

    async def close(self) -> None:
        """Close after what was sent has left."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.wait({self._ahead})
            if not self._ahead.cancelled():
                self._ahead.exception()  # seen: nobody is left to hear of it
        stalled = asyncio.get_running_loop().call_later(CLOSE_STALL_S, self.abort)
        try:
            await self._connection.close()
        finally:
            stalled.cancel()

    async def _receive(self) -> Frame | None:
        try:
            frame = await self._connection.receive(self._timeout_s)
        except TimedOut as error:
            raise ProtocolError("silent_peer", "the connection opened and said nothing") from error
        except Unavailable:
            return None
        self._timeout_s = None
        return frame
