"""A sealed connection that became a byte stream (PORT), as an end of a bridge.

Path: runner and validator, each on its side. Invariant: one frame is at most BODY_CHUNK_BYTES, and
whatever is neither BODY nor END means that the connection is lost.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from chutes_core.base.errors import ProtocolError, Unavailable
from chutes_core.wire.frames import BODY_CHUNK_BYTES, Frame, FrameKind


class Sending(Protocol):
    """What sends frames: runner/link's Link, or `Together` around a SealedConnection."""

    async def send(self, *frames: tuple[FrameKind, bytes]) -> None:
        """Send frames, waiting while the peer takes none."""
        ...

    def abort(self) -> None:
        """Cut the connection."""
        ...


class SealedEnd:
    """The other side of a sealed connection.

    Args:
        link: sends.
        next_frame: the next frame; None, or an error, where the peer is gone.
    """

    def __init__(self, link: Sending, next_frame: Callable[[], Awaitable[Frame | None]]) -> None:
        self._link = link
        self._next_frame = next_frame

    async def receive(self) -> bytes | None:
        """Return the next piece; None once at the end of this direction."""
        frame = await self._next_frame()
        if frame is None:
            raise Unavailable("connection_lost", "the peer closed the connection")
        if frame.kind is FrameKind.BODY:
            return frame.payload
        if frame.kind is FrameKind.END:
            return None
        raise ProtocolError("unexpected_frame", f"{frame.kind.name} in a byte stream")

    async def send(self, data: bytes) -> None:
        """Send a piece."""
        for start in range(0, len(data), BODY_CHUNK_BYTES):
            await self._link.send((FrameKind.BODY, data[start : start + BODY_CHUNK_BYTES]))

    async def send_end(self) -> None:
        """End our direction."""
        await self._link.send((FrameKind.END, b""))

    def abort(self) -> None:
        """Cut the connection."""
        self._link.abort()
