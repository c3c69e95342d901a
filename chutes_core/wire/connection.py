"""Both asyncio ends of a sealed connection: preamble, nonces, keys, then frames.

The validator opens (`open_connection`), the instance accepts (`read_preamble`, then `accept`); the
relay between them only carries bytes. Invariant: every wait has a deadline, and after the first
error a connection is only good for closing.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable
from typing import TypeVar

from chutes_core.base.errors import ProtocolError, TimedOut, Unavailable
from chutes_core.wire.frames import Frame, FrameCodec, FrameKind
from chutes_core.wire.sealing import NONCE_BYTES, PREAMBLE_BYTES, ConnectionKeys, Preamble

CONNECT_TIMEOUT_S = 5.0
_READ_BYTES = 64 * 1024
_T = TypeVar("_T")


class SealedConnection:
    """Frames over one TCP connection; not for use by two tasks in the same direction at once."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, codec: FrameCodec
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._codec = codec
        self._frames: deque[Frame] = deque()

    async def send(self, kind: FrameKind, payload: bytes = b"") -> None:
        """Send one frame, waiting while the peer is slower than we are.

        Raises:
            Unavailable: ``connection_lost``.
        """
        self._writer.write(self._codec.seal(kind, payload))
        await self._drain()

    async def send_json(self, kind: FrameKind, value: object) -> None:
        """Send one frame with a JSON payload."""
        self._writer.write(self._codec.seal_json(kind, value))
        await self._drain()

    async def send_together(self, *frames: tuple[FrameKind, bytes]) -> None:
        """Send several messages in one write, and in one frame where they fit into one.

        Raises:
            Unavailable: ``connection_lost``.
        """
        self._writer.write(self._codec.seal_together(*frames))
        await self._drain()

    async def receive(self, timeout_s: float | None = None) -> Frame:
        """Return the next frame.

        Raises:
            Unavailable: ``connection_lost``, the peer closed.
            TimedOut: ``frame_timeout``, nothing came in time.
            ProtocolError: the peer sent what does not authenticate.
        """
        if self._frames:
            return self._frames.popleft()
        return await _within(self._receive(), timeout_s, "frame_timeout")

    @property
    def usable(self) -> bool:
        """Tell whether the connection looks alive: the peer has neither closed nor spoken."""
        return not (self._frames or self._reader.at_eof() or self._writer.is_closing())

    def abort(self) -> None:
        """Close at once, dropping what is not sent: the peer sees the connection end."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close after what was sent has left."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return  # the peer closed first, which is what was wanted

    async def _receive(self) -> Frame:
        while not self._frames:
            try:
                data = await self._reader.read(_READ_BYTES)
            except OSError as error:
                raise _lost() from error
            if not data:
                raise _lost()
            self._frames.extend(self._codec.feed(data))
        return self._frames.popleft()

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError as error:
            raise _lost() from error


async def open_connection(
    host: str,
    port: int,
    *,
    root: bytes,
    ticket: bytes,
    launch_id: str,
    generation: int,
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> SealedConnection:
    """Dial an instance through its miner's relay and return the validator's end.

    Raises:
        Unavailable: ``connect_failed`` or ``connection_lost`` (the relay knows no such launch).
        TimedOut: ``connect_timeout``.
    """
    try:
        dialling = asyncio.open_connection(host, port)
        reader, writer = await _within(dialling, timeout_s, "connect_timeout")
    except OSError as error:
        raise Unavailable("connect_failed", f"{host}:{port} does not accept connections") from error
    try:
        preamble = Preamble.build(ticket=ticket, launch_id=launch_id, generation=generation)
        writer.write(preamble.to_bytes())
        nonce = await _within(_read_exactly(reader, NONCE_BYTES), timeout_s, "connect_timeout")
    except BaseException:
        writer.transport.abort()
        raise
    keys = ConnectionKeys.derive(root, validator_nonce=preamble.nonce, instance_nonce=nonce)
    return SealedConnection(reader, writer, FrameCodec.for_validator(keys))


async def read_preamble(reader: asyncio.StreamReader, timeout_s: float) -> Preamble:
    """Read the preamble that opens a connection (relay and instance).

    Raises:
        ProtocolError: these bytes are no preamble.
        Unavailable: the peer closed before it was complete.
        TimedOut: it did not come in time.
    """
    data = await _within(_read_exactly(reader, PREAMBLE_BYTES), timeout_s, "preamble_timeout")
    return Preamble.parse(data)


def accept(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, preamble: Preamble, *, root: bytes
) -> SealedConnection:
    """Return the instance's end; draws and sends the instance's nonce.

    The caller has checked the preamble's launch id and generation, and picks the root by it.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    writer.write(nonce)
    keys = ConnectionKeys.derive(root, validator_nonce=preamble.nonce, instance_nonce=nonce)
    return SealedConnection(reader, writer, FrameCodec.for_instance(keys))


def expect(frame: Frame, *kinds: FrameKind) -> Frame:
    """Return the frame if it is of a wanted kind.

    Raises:
        ProtocolError: ``unexpected_frame``.
    """
    if frame.kind not in kinds:
        wanted = ", ".join(kind.name for kind in kinds)
        raise ProtocolError("unexpected_frame", f"got {frame.kind.name} in place of {wanted}")
    return frame


async def _read_exactly(reader: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, OSError) as error:
        raise _lost() from error


async def _within(awaitable: Awaitable[_T], timeout_s: float | None, code: str) -> _T:
    try:
        return await asyncio.wait_for(awaitable, timeout_s)
    except asyncio.TimeoutError as error:
        raise TimedOut(code, f"nothing came within {timeout_s} s") from error


def _lost() -> Unavailable:
    return Unavailable("connection_lost", "the peer closed the connection")
