"""The few SCALE primitives that must be read or written where no type registry applies.

Used on the outside of what `codec` does: the frame of an extrinsic, the header, and the metadata
itself while it is patched. Invariant: a `Reader` never returns bytes beyond its input.

Encoding: https://docs.polkadot.com/polkadot-protocol/basics/data-encoding/ (compact integers).
"""

from chutes_core.base.errors import Invalid


class Reader:
    """A cursor over SCALE bytes.

    Args:
        data: the bytes to read.
        offset: where to start.
    """

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self.data = data
        self.offset = offset

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.offset

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes.

        Raises:
            Invalid: ``scale_truncated``.
        """
        if count < 0 or count > self.remaining:
            raise Invalid("scale_truncated", f"{count} bytes wanted, {self.remaining} left")
        self.offset += count
        return self.data[self.offset - count : self.offset]

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(self.remaining)

    def u8(self) -> int:
        """Return one byte as an integer."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Return a little-endian 16-bit integer."""
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        """Return a little-endian 32-bit integer."""
        return int.from_bytes(self.take(4), "little")

    def compact(self) -> int:
        """Return a compact integer."""
        mode = self.data[self.offset] & 3 if self.remaining else 0
        if mode < 3:
            return int.from_bytes(self.take(1 << mode), "little") >> 2
        return int.from_bytes(self.take((self.u8() >> 2) + 4), "little")

    def octets(self) -> bytes:
        """Return a length-prefixed byte string."""
        return self.take(self.compact())

    def text(self) -> str:
        """Return a length-prefixed UTF-8 string."""
        return self.octets().decode("utf-8")


def compact(value: int) -> bytes:
    """Encode a non-negative integer in compact form.

    >>> compact(1).hex(), compact(64).hex(), compact(1 << 30).hex()
    ('04', '0101', '0300000040')
    """
    if value < 1 << 6:
        return bytes([value << 2])
    if value < 1 << 14:
        return (value << 2 | 1).to_bytes(2, "little")
    if value < 1 << 30:
        return (value << 2 | 2).to_bytes(4, "little")
    size = max(4, (value.bit_length() + 7) // 8)
    return bytes([(size - 4) << 2 | 3]) + value.to_bytes(size, "little")


def octets(data: bytes) -> bytes:
    """Encode a byte string with its compact length in front."""
    return compact(len(data)) + data
