"""Frames inside a connection: what kinds there are, and a codec without I/O.

On the wire: u32 length of the ciphertext (big endian, authenticated) and the ciphertext of
(u8 kind, payload); what is sent together is one frame (wire/together). The same codec serves the
gateway and the runner (asyncio) and the attestation session (blocking sockets). Invariant: one
frame is at most MAX_PAYLOAD_BYTES, and a frame that does not authenticate ends the connection.

A connection: validator sends a Preamble; the instance answers with its 32-byte nonce; both derive
ConnectionKeys; from then on only frames.
"""

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from chutes_core.base.errors import ProtocolError
from chutes_core.wire.sealing import ConnectionKeys, Opener, Sealer
from chutes_core.wire.together import fits_together, pack_together, unpack_together

MAX_PAYLOAD_BYTES: Final = 1024 * 1024
BODY_CHUNK_BYTES: Final = 64 * 1024
_LENGTH: Final = struct.Struct(">I")
_OVERHEAD_BYTES: Final = 1 + 16
_LEG_HEAD: Final = struct.Struct(">HB")


class FrameKind(IntEnum):
    """Every kind of frame; docs/architecture/03-protocols.md says who sends which, when."""

    PING = 1
    PONG = 2
    HELLO = 3
    WARM = 4
    LEG = 5
    ANSWER = 6
    REKEY = 7
    REKEYED = 8
    START = 16
    STARTED = 17
    RENEW = 18
    STOP = 19
    OK = 20
    CALL = 32
    RESPONSE = 33
    BODY = 34
    END = 35
    TOGETHER = 36
    JOB = 40
    JOB_ASK = 41
    JOB_TOLD = 42
    JOB_FILE = 43
    PORT = 44
    ERROR = 63


@dataclass(frozen=True)
class Frame:
    """One decrypted frame."""

    kind: FrameKind
    payload: bytes

    def json(self) -> Any:
        """Return the payload as JSON.

        Raises:
            ProtocolError: the payload is not JSON.
        """
        try:
            return json.loads(self.payload)
        except ValueError as error:
            raise ProtocolError("bad_frame", f"{self.kind.name} carries no JSON") from error


class FrameCodec:
    """Seals outgoing frames and opens incoming ones of one connection."""

    def __init__(self, *, send_key: bytes, receive_key: bytes) -> None:
        self._sealer = Sealer(send_key)
        self._opener = Opener(receive_key)
        self._buffer = bytearray()

    @classmethod
    def for_validator(cls, keys: ConnectionKeys) -> "FrameCodec":
        """Return the validator's end."""
        return cls(send_key=keys.to_instance, receive_key=keys.to_validator)

    @classmethod
    def for_instance(cls, keys: ConnectionKeys) -> "FrameCodec":
        """Return the instance's end."""
        return cls(send_key=keys.to_validator, receive_key=keys.to_instance)

    def seal(self, kind: FrameKind, payload: bytes = b"") -> bytes:
        """Return one frame's bytes.

        Raises:
            ProtocolError: the payload is over MAX_PAYLOAD_BYTES (split it into BODY frames).
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ProtocolError("frame_too_large", f"{kind.name} of {len(payload)} bytes")
        header = _LENGTH.pack(len(payload) + _OVERHEAD_BYTES)
        return header + self._sealer.seal(bytes([kind]) + payload, header)

    def seal_together(self, *messages: tuple[FrameKind, bytes]) -> bytes:
        """Return the bytes that carry these messages: one frame where they fit into one.

        Raises:
            ProtocolError: a payload is over MAX_PAYLOAD_BYTES.
        """
        if fits_together(messages, MAX_PAYLOAD_BYTES):
            return self.seal(FrameKind.TOGETHER, pack_together(messages))
        return b"".join([self.seal(kind, payload) for kind, payload in messages])

    def seal_json(self, kind: FrameKind, value: object) -> bytes:
        """Return one frame's bytes with a JSON payload."""
        return self.seal(kind, json.dumps(value, separators=(",", ":")).encode())

    def feed(self, data: bytes) -> list[Frame]:
        """Take received bytes and return the frames that are now whole.

        Raises:
            ProtocolError: too long, not authentic, or of an unknown kind.
        """
        self._buffer += data
        frames: list[Frame] = []
        while (plain := self._next()) is not None:
            if plain[0] == FrameKind.TOGETHER:
                frames += [_frame(kind, payload) for kind, payload in unpack_together(plain, 1)]
            else:
                frames.append(_frame(plain[0], plain[1:]))
        return frames

    def _next(self) -> bytes | None:
        """Return the plaintext of the next whole frame: its kind and its payload."""
        if len(self._buffer) < _LENGTH.size:
            return None
        header = bytes(self._buffer[: _LENGTH.size])
        (length,) = _LENGTH.unpack(header)
        if not _OVERHEAD_BYTES <= length <= MAX_PAYLOAD_BYTES + _OVERHEAD_BYTES:
            raise ProtocolError("bad_frame", "a frame announces an impossible length")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        plain = self._opener.open(bytes(self._buffer[_LENGTH.size : end]), header)
        del self._buffer[:end]
        return plain


def _frame(kind: int, payload: bytes) -> Frame:
    try:
        return Frame(FrameKind(kind), payload)
    except ValueError as error:
        raise ProtocolError("bad_frame", f"unknown frame kind {kind}") from error


def pack_leg(gpu_index: int, leg: int, body: bytes) -> bytes:
    """Return the payload of a LEG or ANSWER frame: which GPU, which leg (1 or 2), its bytes."""
    return _LEG_HEAD.pack(gpu_index, leg) + body


def unpack_leg(payload: bytes) -> tuple[int, int, bytes]:
    """Return (gpu_index, leg, body) of a LEG or ANSWER frame.

    Raises:
        ProtocolError: the payload is too short.
    """
    if len(payload) < _LEG_HEAD.size:
        raise ProtocolError("bad_frame", "a leg without its head")
    gpu_index, leg = _LEG_HEAD.unpack_from(payload)
    return gpu_index, leg, payload[_LEG_HEAD.size :]
