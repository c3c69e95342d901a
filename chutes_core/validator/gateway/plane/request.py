"""One request as it was parsed, and what of it is refused although the parser took it.

Path: http -> request -> fast or bridge. llhttp refuses two lengths, a length with chunks, bare line
feeds and folded headers; the rules here are those that it leaves to us. Invariant: what is passed
on can be read in one way only, so that no two servers on its path see different requests.
"""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from chutes_core.wire.stream import UPGRADE

SMALL_BYTES: Final = 64 * 1024
_VERSIONS: Final = ("1.1", "1.0")
_CHUNKED: Final = b"chunked"
_WEBSOCKET: Final = b"websocket"
_STREAMS: Final = (UPGRADE.encode(), _WEBSOCKET)

RawHeader = tuple[bytes, bytes]


class Malformed(Exception):
    """This request is refused with 400."""


@dataclass
class Shape:
    """What two requests of a connection have in common if only their bodies differ.

    ``headers`` have names in lower case and no content-length; ``plan`` is the fast path's, which
    thus works out a repeated request once.
    """

    method: str
    version: str
    url: bytes
    headers: tuple[RawHeader, ...]
    path: str
    raw_path: bytes
    query: bytes
    host: str
    upgrade: bytes
    expects: bool
    plan: Any = None

    @property
    def asks_for_websocket(self) -> bool:
        """Tell whether a websocket is wanted, alone or among other protocols."""
        upgrade = self.upgrade
        return upgrade == _WEBSOCKET or (
            _WEBSOCKET in upgrade and _WEBSOCKET in map(bytes.strip, upgrade.split(b","))
        )


class Request:
    """One request while it comes in; ``length`` is its Content-Length, if it names one.

    ``size`` counts the bytes in ``chunks``; once it is ``dropped`` what still comes is not kept.
    ``switches`` tells that no HTTP follows it; ``is_stream`` that what follows it is to be a byte
    stream: one of ours (wire/stream), or a websocket.
    """

    __slots__ = (
        "chunks",
        "complete",
        "dropped",
        "is_stream",
        "keep_alive",
        "length",
        "received",
        "shape",
        "size",
    )

    def __init__(
        self, shape: Shape, *, length: int | None, keep_alive: bool, switches: bool = False
    ) -> None:
        self.shape = shape
        self.length = length
        self.keep_alive = keep_alive
        self.chunks: list[bytes] = []
        self.size = 0
        self.received = 0
        self.complete = False
        self.dropped = False
        self.is_stream = switches and _asks_for_stream(shape) and length is None

    def take(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        self.received += len(piece)
        if not self.dropped:
            self.chunks.append(piece)
            self.size += len(piece)

    def rest_is_small(self) -> bool:
        """Tell whether what is still to come of the body is worth reading for the next request."""
        if self.complete:
            return True
        return self.length is not None and self.length - self.received <= SMALL_BYTES

    def body(self) -> bytes:
        """Return what came of the body so far."""
        if len(self.chunks) > 1:
            self.chunks = [b"".join(self.chunks)]
        return self.chunks[0] if self.chunks else b""


def _asks_for_stream(shape: Shape) -> bool:
    if shape.upgrade not in _STREAMS or shape.method != "GET" or shape.version != "1.1":
        return False
    return all(name != b"transfer-encoding" for name, _ in shape.headers)


def shape_of(
    method: bytes, version: str, url: bytes, headers: tuple[RawHeader, ...], *, has_length: bool
) -> Shape:
    """Return the shape of a request.

    Raises:
        Malformed: it could be read in two ways.
    """
    if version not in _VERSIONS or method == b"CONNECT":
        raise Malformed
    named: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in named:
            if name in (b"host", b"transfer-encoding"):
                raise Malformed
            if name == b"upgrade":
                value = b"%b, %b" % (named[name], value)
        named[name] = value
    _check_framing(version, named.get(b"transfer-encoding"), has_length=has_length)
    raw_host = named.get(b"host")
    if raw_host is None and version == "1.1":
        raise Malformed
    host = (raw_host or b"").decode("latin-1")
    raw_path, _, query = _origin_form(method, url, host).partition(b"?")
    path = raw_path.decode("ascii")
    return Shape(
        method=method.decode("ascii"),
        version=version,
        url=url,
        headers=headers,
        path=unquote(path) if "%" in path else path,
        raw_path=raw_path,
        query=query,
        host=host,
        upgrade=named.get(b"upgrade", b"").lower(),
        expects=named.get(b"expect", b"").lower() == b"100-continue",
    )


def _check_framing(version: str, coding: bytes | None, *, has_length: bool) -> None:
    """Refuse a coding other than chunked alone, any under HTTP/1.0, or one with a length."""
    if coding is None:
        return
    if has_length or version == "1.0" or coding.lower() != _CHUNKED:
        raise Malformed


def _origin_form(method: bytes, url: bytes, host: str) -> bytes:
    """Return the target from its path on; an absolute one must name the Host that it came to."""
    if url.startswith(b"/") or (url == b"*" and method == b"OPTIONS"):
        target = url
    else:
        scheme, _, rest = url.partition(b"://")
        authority, slash, path = rest.partition(b"/")
        if scheme.lower() not in (b"http", b"https") or not authority:
            raise Malformed
        if authority.decode("latin-1").lower() != host.lower():
            raise Malformed
        target = slash + path or b"/"
    if b"#" in target or not target.isascii():
        raise Malformed
    return target
