"""Several messages in one sealed frame: one seal, one tag and one length for all of them.

Payload of a TOGETHER frame: for each message u8 kind, u32 length (big endian), payload; one behind
the other to the end. Path: wire/frames and the gateway's plane/link put what is sent together into
one frame and take it apart again. Invariant: it holds two to MAX_TOGETHER messages, none of which
is a TOGETHER itself, so that a frame is never more work than its bytes are worth.
"""

import struct
from collections.abc import Sequence

from chutes_core.base.errors import ProtocolError

TOGETHER = 36  # its FrameKind
MAX_TOGETHER = 64
_PART = struct.Struct(">BI")
_PART_BYTES = _PART.size


def pack_together(messages: Sequence[tuple[int, bytes]]) -> bytes:
    """Return the payload that holds these messages; the caller has checked `fits_together`."""
    parts = []
    for kind, payload in messages:
        parts.append(_PART.pack(kind, len(payload)))
        parts.append(payload)
    return b"".join(parts)


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
