"""A byte stream with an end on each side, in an HTTP/1.1 connection that was upgraded.

Path: CLI -> validator's public port; GET /jobs/{id}/tunnels/{port} with `Upgrade: chutes-stream`,
101, then pieces both ways. A piece: u32 length, big endian, and so many bytes; length 0 ends a
direction; 0xFFFFFFFF has no bytes and only keeps proxies from taking the silence for death (it is
answered by another one, unless bytes are on their way). TLS and proxies know no half-close, so the
end of a direction is said, not shown. Invariant: a piece is at most MAX_PIECE_BYTES, and nothing
follows the end of a direction.
"""

import struct

from chutes_core.base.errors import ProtocolError

UPGRADE = "chutes-stream"
MAX_PIECE_BYTES = 64 * 1024
ALIVE_S = 20.0  # silence after which a caller sends ALIVE
_LENGTH = struct.Struct(">I")
_ALIVE_LENGTH = 0xFFFF_FFFF
ALIVE = _LENGTH.pack(_ALIVE_LENGTH)
END = _LENGTH.pack(0)


def pack(data: bytes) -> bytes:
    """Return bytes as pieces.

    >>> pack(b"abc").hex(), pack(b"")
    ('00000003616263', b'')
    """
    pieces = [
        data[start : start + MAX_PIECE_BYTES] for start in range(0, len(data), MAX_PIECE_BYTES)
    ]
    return b"".join(_LENGTH.pack(len(piece)) + piece for piece in pieces)


class Unpacker:
    """Reads one direction.

    Attributes:
        ended: whether its end has come.
        asked: how many ALIVE have come and were not answered yet; the reader takes them off.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self.ended = False
        self.asked = 0

    def feed(self, data: bytes) -> bytes:
        """Take what came and return the bytes of the pieces that are whole now.

        Raises:
            ProtocolError: ``bad_stream``.
        """
        self._rest += data
        whole, at = [], 0
        while len(self._rest) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._rest, at)
            begin = at + _LENGTH.size
            if length == _ALIVE_LENGTH:
                at, self.asked = begin, self.asked + 1
                continue
            if length > MAX_PIECE_BYTES or self.ended:
                raise _bad()
            if len(self._rest) < begin + length:
                break
            at = begin + length
            whole.append(bytes(self._rest[begin:at]))
            self.ended = self.ended or not length
        del self._rest[:at]
        if self.ended and self._rest and self._rest[:1] != ALIVE[:1]:
            raise _bad()
        return b"".join(whole)


def _bad() -> ProtocolError:
    return ProtocolError(
        "bad_stream",
        "what came is no piece of a stream",
        hint="use `chutes jobs forward`, or the pieces of wire/stream",
    )
