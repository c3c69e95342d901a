"""How an Invocation lies in a journal segment: a pure codec and scanner.

One record: u32 length of the body, u32 CRC-32 (zlib's) of sequence and body, u64 sequence, then
the body, JSON of the Invocation; all big endian. Invariant: `scan` yields only records that are
whole, authentic to their CRC and consecutive; what follows the first that is not is a torn tail.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from chutes_core.validator.domain.invocations import Invocation

_HEAD: Final = struct.Struct(">IIQ")
_SEQUENCE: Final = struct.Struct(">Q")
_LENGTH_CRC: Final = struct.Struct(">II")  # _HEAD without its sequence
MAX_BODY_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Record:
    """One whole record: its sequence, its JSON, and the offset just behind it."""

    sequence: int
    body: bytes
    end: int

    def invocation(self) -> Invocation:
        """Return the invocation that it holds."""
        return Invocation(**orjson.loads(self.body))


Fields = dict[
    str, object
]  # of an Invocation, in its order; a frozen dataclass costs ten times more


def encode(invocation: Invocation) -> bytes:
    """Return the bytes of one record."""
    return encode_fields(vars(invocation), invocation.sequence)


def encode_fields(fields: Fields, sequence: int) -> bytes:
    """Return the bytes of the record that holds these fields of an Invocation."""
    return encode_body(orjson.dumps(fields), sequence)


def encode_body(body: bytes, sequence: int) -> bytes:
    """Return the bytes of the record that holds the JSON of an Invocation."""
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"an invocation of {len(body)} bytes is no invocation")
    covered = _SEQUENCE.pack(sequence) + body
    return _LENGTH_CRC.pack(len(body), zlib.crc32(covered)) + covered


def opening(worker: str) -> bytes:
    """Return the JSON of an Invocation up to its sequence; `encode_rest` goes on with it."""
    return b'{"worker":%b,"sequence":' % orjson.dumps(worker)


def encode_rest(start: bytes, sequence: int, rest: bytes) -> bytes:
    """Return the bytes of a record: `opening`, the sequence, and the fields that follow it."""
    return encode_body(b"%b%d%b" % (start, sequence, rest), sequence)


def scan(data: bytes, first_sequence: int, offset: int = 0) -> Iterator[Record]:
    """Yield the records of a segment from ``offset``, up to the first that is not whole."""
    expected = first_sequence
    while offset + _HEAD.size <= len(data):
        length, crc, sequence = _HEAD.unpack_from(data, offset)
        end = offset + _HEAD.size + length
        if sequence != expected or not 0 < length <= MAX_BODY_BYTES or end > len(data):
            return
        body = data[offset + _HEAD.size : end]
        if zlib.crc32(body, zlib.crc32(_SEQUENCE.pack(sequence))) != crc:
            return
        yield Record(sequence, body, end)
        offset, expected = end, expected + 1
