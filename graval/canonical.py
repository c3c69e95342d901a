"""Canonical bytes: one value, one encoding; anything else is `Malformed`.

A frozen dataclass that inherits `Canonical` is written as its tag and then its fields in order of
declaration. Each element is a length (4 bytes, big-endian) and that many bytes: text is UTF-8, an
int is 8 bytes unsigned, a bool one byte 0 or 1, a missing optional is the empty element, a tuple
is an element that holds its items, and a nested dataclass is an element that holds its own bytes.

Invariant: `from_bytes(b).to_bytes() == b` for every accepted b, so a hash of the bytes is a hash
of the value. Trailing, missing or surplus bytes raise `Malformed`.
"""

import types
import typing
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

from graval import VERSION
from graval.errors import Malformed

_LENGTH_BYTES = 4
_INT_BYTES = 8
_C = TypeVar("_C", bound="Canonical")


class Canonical:
    """Mixin of a frozen dataclass that has one canonical encoding.

    Field types may be bytes, str, int (0 to 2^64 - 1), bool, another `Canonical`, a
    ``tuple[X, ...]`` of these, or ``X | None`` where X's encoding is never empty.
    """

    TAG: ClassVar[str]

    def to_bytes(self) -> bytes:
        """The canonical bytes of this value."""
        hints = _hints(type(self))
        parts = [_element(f"graval/{VERSION} {self.TAG}".encode())]
        parts += [
            _element(_encode(getattr(self, f.name), hints[f.name], f.name))
            for f in fields(self)  # type: ignore[arg-type] # each subclass is a dataclass
        ]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls: type[_C], data: bytes) -> _C:
        """The value whose canonical bytes these are.

        Raises:
            Malformed: the bytes are not the canonical form of a value of this class.
        """
        elements = list(_split(data))
        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        if len(elements) != len(names) + 1:
            raise Malformed("fields", f"{cls.TAG} has {len(names)} fields")
        if elements[0] != f"graval/{VERSION} {cls.TAG}".encode():
            raise Malformed("tag", f"these bytes are not a {cls.TAG} of version {VERSION}")
        hints = _hints(cls)
        return cls(
            **{
                name: _decode(element, hints[name], name)
                for name, element in zip(names, elements[1:], strict=True)
            }
        )


def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _element(data: bytes) -> bytes:
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _split(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or end > len(data):
            raise Malformed("truncated", "bytes are missing")
        yield data[start:end]
        at = end


def _optional(kind: Any) -> Any:
    """X of ``X | None``, or None when the kind is no optional."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        (inner,) = [a for a in typing.get_args(kind) if a is not type(None)]
        return inner
    return None


def _encode(value: Any, kind: Any, name: str) -> bytes:
    inner = _optional(kind)
    if inner is not None:
        return b"" if value is None else _encode(value, inner, name)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return b"".join(_element(_encode(v, item, name)) for v in value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Malformed("type", f"{name} is not of type {kind.__name__}")
    if kind is bool:
        return b"\x01" if value else b"\x00"
    if kind is int:
        if not 0 <= value < 1 << 64:
            raise Malformed("range", f"{name} is outside 0 to 2^64 - 1")
        return bytes(value.to_bytes(_INT_BYTES, "big"))
    if kind is str:
        return _utf8(value, name)
    return bytes(value.to_bytes()) if issubclass(kind, Canonical) else bytes(value)


def _utf8(value: str, name: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise Malformed("text", f"{name} is not encodable as UTF-8") from error


def _decode(data: bytes, kind: Any, name: str) -> Any:
    inner = _optional(kind)
    if inner is not None:
        return None if not data else _decode(data, inner, name)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return tuple(_decode(element, item, name) for element in _split(data))
    if kind is bool:
        if data not in (b"\x00", b"\x01"):
            raise Malformed("bool", f"{name} is not one byte 0 or 1")
        return data == b"\x01"
    if kind is int:
        if len(data) != _INT_BYTES:
            raise Malformed("int", f"{name} is not {_INT_BYTES} bytes")
        return int.from_bytes(data, "big")
    if kind is str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise Malformed("text", f"{name} is not UTF-8") from error
    return kind.from_bytes(data) if issubclass(kind, Canonical) else bytes(data)
