"""Several messages in one sealed frame: one seal, one tag and one length for all of them.

Payload of a TOGETHER frame: for each message u8 kind, u32 length (big endian), payload; one behind
the other to the end. Path: wire/frames and the gateway's plane/link put what is sent together into
one frame and take it apart again. Invariant: it holds two to MAX_TOGETHER messages, none of which
is a TOGETHER itself, so that a frame is never more work than its bytes are worth.
"""

import struct
from collections.abc import Sequence
from typing import Final

from chutes_core.base.errors import ProtocolError

TOGETHER: Final = 36  # its FrameKind
MAX_TOGETHER: Final = 64
_PART: Final = struct.Struct(">BI")
_PART_BYTES: Final = _PART.size
_FIRST: Final = struct.Struct(">BBI")  # the frame's kind, and the first message's head
_unpack_part = _PART.unpack_from


def pack_together(messages: Sequence[tuple[int, bytes]]) -> bytes:
    """Return the payload that holds these messages; the caller has checked `fits_together`."""
    parts = []
    for kind, payload in messages:
        parts.append(_PART.pack(kind, len(payload)))
        parts.append(payload)
    return b"".join(parts)


def frame_of_two(one: int, payload: bytes, last: int) -> bytes:
    """Return a frame's plaintext: a message, and one without a payload behind it; they fit."""
    return b"".join((_FIRST.pack(TOGETHER, one, len(payload)), payload, _PART.pack(last, 0)))


def frame_of_three(one: int, payload: bytes, two: int, more: bytes, last: int) -> bytes:
    """Return a frame's plaintext: two messages, and one without a payload behind them; they fit."""
    first, second = _FIRST.pack(TOGETHER, one, len(payload)), _PART.pack(two, len(more))
    return b"".join((first, payload, second, more, _PART.pack(last, 0)))


def three_of(plain: bytes) -> tuple[int, bytes, int, bytes, int, bytes] | None:
    """Return kinds and payloads of a TOGETHER frame that holds three messages.

    None where it does not, or is not sound: `unpack_together` then says what it is.
    """
    try:
        one, length = _unpack_part(plain, 1)
        end = 1 + _PART_BYTES + length
        two, length = _unpack_part(plain, end)
        begin = end + _PART_BYTES
        middle = begin + length
        three, length = _unpack_part(plain, middle)
    except struct.error:
        return None
    last = middle + _PART_BYTES
    if last + length != len(plain) or TOGETHER in (one, two, three):
        return None
    return one, plain[1 + _PART_BYTES : end], two, plain[begin:middle], three, plain[last:]


def fits_together(messages: Sequence[tuple[int, bytes]], max_bytes: int) -> bool:
    """Tell whether one frame of at most ``max_bytes`` can carry these messages."""
    count = len(messages)
    if not 2 <= count <= MAX_TOGETHER:
        return False
    return sum([len(payload) for _, payload in messages]) + count * _PART_BYTES <= max_bytes


def unpack_together(plain: bytes, at: int = 0) -> list[tuple[int, bytes]]:
    """Return the kinds and payloads of the messages that stand in ``plain`` from ``at`` on.

    Raises:
        ProtocolError: ``bad_frame``: it is cut short, has too few or too many, or one in another.
    """
    size = len(plain)
    messages: list[tuple[int, bytes]] = []
    while at < size:
        if size - at < _PART_BYTES:
            raise _bad()
        kind, length = _PART.unpack_from(plain, at)
        begin = at + _PART_BYTES
        at = begin + length
        if at > size or kind == TOGETHER:
            raise _bad()
        messages.append((kind, plain[begin:at]))
        if len(messages) > MAX_TOGETHER:
            raise _bad()
    if len(messages) < 2:
        raise _bad()
    return messages


def _bad() -> ProtocolError:
    return ProtocolError("bad_frame", "messages that were sent together do not come apart")
