"""Framing between a prover and whoever started it: sans-IO, with helpers for binary streams.

A frame is a 5-byte header (body length, 4 bytes big-endian; kind, 1 byte) and the body. Bodies are
canonical bytes: WARM carries a `Warm`, LEG1 a `Leg1`, LEG2 a `Leg2`, ANSWER an `Answer` (whose
32-byte `digest` goes to the verifier and into the session's keys), ERROR an `ErrorReport`; QUIT is
empty. The prover speaks first (WARM) and then only when asked.

    prover -> WARM;  LEG1 -> ANSWER;  LEG2 -> ANSWER;  ...;  QUIT or end of input -> exit 0

A new LEG1 drops the fill of the one before. After an ERROR the prover exits with status 1.

With asyncio: `header = await reader.readexactly(HEADER_BYTES)`, `kind, size =
decode_header(header)`, `body = await reader.readexactly(size)`; or feed what comes to a `Decoder`.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO, ClassVar

from graval.canonical import Canonical
from graval.challenge import DeviceInfo
from graval.errors import ProtocolViolation

HEADER_BYTES = 5
MAX_BODY_BYTES = 1 << 20
MAX_ERROR_TEXT = 2000


class Kind(IntEnum):
    """What a frame's body is."""

    WARM = 1
    LEG1 = 2
    LEG2 = 3
    ANSWER = 4
    QUIT = 5
    ERROR = 6


@dataclass(frozen=True)
class RowsFor(Canonical):
    """How many rows of a profile the device can hold; 0 when it cannot run the profile."""

    TAG: ClassVar[str] = "rows"

    profile_name: str
    rows: int


@dataclass(frozen=True)
class Warm(Canonical):
    """The prover is warmed up: its device, and what it can fill."""

    TAG: ClassVar[str] = "warm"

    device: DeviceInfo
    rows: tuple[RowsFor, ...]

    def rows_for(self, profile_name: str) -> int:
        """Rows of a profile that the device can hold; 0 when it cannot run the profile."""
        return next((r.rows for r in self.rows if r.profile_name == profile_name), 0)


@dataclass(frozen=True)
class ErrorReport(Canonical):
    """Why the prover gives up."""

    TAG: ClassVar[str] = "error"

    code: str
    text: str
    hint: str = ""


@dataclass(frozen=True)
class Message:
    """One frame."""

    kind: Kind
    body: bytes = b""


def encode(message: Message) -> bytes:
    """The bytes of a frame.

    Raises:
        ProtocolViolation: the body is too large.
    """
    if len(message.body) > MAX_BODY_BYTES:
        raise ProtocolViolation("too_large", "the message is over its size limit")
    header = len(message.body).to_bytes(4, "big") + bytes([message.kind])
    return header + message.body


def decode_header(header: bytes) -> tuple[Kind, int]:
    """Kind and body size in bytes of a frame's first `HEADER_BYTES` bytes.

    Raises:
        ProtocolViolation: unknown kind, or a body over `MAX_BODY_BYTES`.
    """
    if len(header) != HEADER_BYTES:
        raise ProtocolViolation("truncated", "the stream ended inside a message")
    size = int.from_bytes(header[:4], "big")
    if size > MAX_BODY_BYTES:
        raise ProtocolViolation("too_large", "the message is over its size limit")
    try:
        return Kind(header[4]), size
    except ValueError as error:
        raise ProtocolViolation("unknown_kind", f"no message has kind {header[4]}") from error


class Decoder:
    """Turns chunks of a stream into messages, whatever their borders."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete with this chunk.

        Raises:
            ProtocolViolation: see `decode_header`.
        """
        self._buffer += data
        complete = []
        while len(self._buffer) >= HEADER_BYTES:
            kind, size = decode_header(bytes(self._buffer[:HEADER_BYTES]))
            end = HEADER_BYTES + size
            if len(self._buffer) < end:
                break
            complete.append(Message(kind, bytes(self._buffer[HEADER_BYTES:end])))
            del self._buffer[:end]
        return complete

    def finish(self) -> None:
        """The stream has ended.

        Raises:
            ProtocolViolation: inside a message.
        """
        if self._buffer:
            raise ProtocolViolation("truncated", "the stream ended inside a message")


def read(stream: BinaryIO) -> Message | None:
    """The next message of a blocking stream, or None at its end.

    Raises:
        ProtocolViolation: see `decode_header`, or the stream ended inside a message.
    """
    header = _read_exactly(stream, HEADER_BYTES)
    if not header:
        return None
    kind, size = decode_header(header)
    body = _read_exactly(stream, size)
    if len(body) != size:
        raise ProtocolViolation("truncated", "the stream ended inside a message")
    return Message(kind, body)


def write(stream: BinaryIO, message: Message) -> None:
    """Write one message and flush."""
    stream.write(encode(message))
    stream.flush()


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(size - len(data))
        if not chunk:
            break
        data += chunk
    return bytes(data)
