"""Bytes of one connection to requests: a parser, its bounds, and the heads that repeat themselves.

Path: socket -> http -> here -> http. httptools (llhttp) parses; a head that came before, byte for
byte, is not parsed again (`Heads`). Invariants: bytes that lead to no request are bounded; a known
head is taken only where the parser stands between two messages and what came is exactly that head
and its whole body, so that what is skipped is what the parser would have made of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httptools

from chutes_core.validator.gateway.plane.request import (
    SMALL_BYTES,
    Malformed,
    Request,
    Shape,
    shape_of,
)
from chutes_core.wire.http_server import HEAD_TOO_LARGE, MALFORMED, HttpLimits, Refusal

MAX_HEADS: Final = 1024
MAX_HEAD_BYTES: Final = 4096  # of one that is remembered
_END: Final = b"\r\n\r\n"
_CODING: Final = b"transfer-encoding"


class Refused(Exception):
    """What came is answered by ``Reader.refusal``."""


class Upgrading(Exception):
    """A request for another protocol is whole; what follows it, from ``at`` on, is no HTTP."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at


@dataclass(frozen=True)
class Head:
    """What the parser made of a head; ``length`` is its Content-Length, if it names one."""

    shape: Shape
    length: int | None


class Heads:
    """Heads of HTTP/1.1 requests by their bytes, for all connections of a server."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def request(self, data: bytes) -> Request | None:
        """Return the whole request that ``data`` is, if its head is known."""
        end = data.find(_END) + len(_END)
        head = self._known.get(data[:end])
        if head is None:
            return None
        size = len(data) - end
        if size != (head.length or 0):
            return None
        request = Request(head.shape, length=head.length, keep_alive=True)
        request.complete = True
        if size:
            request.chunks.append(data[end:])
            request.size = request.received = size
        return request

    def learn(self, data: bytes, request: Request) -> None:
        """Remember the head of a request that came alone, whole, in one piece, and not first.

        The first blank line is the head's end: were it behind it, in the body, less would follow.
        """
        end = data.find(_END) + len(_END)
        size = request.length or 0
        ordinary = request.keep_alive and not (request.shape.expects or request.shape.upgrade)
        if len(data) - end != size or request.received != size or size > SMALL_BYTES:
            return
        if request.shape.version != "1.1" or not ordinary or end > MAX_HEAD_BYTES:
            return
        if len(self._known) >= MAX_HEADS:
            self._known.clear()
        self._known[data[:end]] = Head(request.shape, request.length)


class Reader:
    """Reads one connection.

    Args:
        limits: of heads.
        heads: what is known of them.
        found: called with each request as soon as its head is whole.

    Attributes:
        coming: the request whose body is being read.
        in_head: whether a head has begun and is not whole.
        refusal: what a refused request is answered; set before, every request gets it.
    """

    def __init__(self, limits: HttpLimits, heads: Heads, found: Callable[[Request], None]) -> None:
        self.coming: Request | None = None
        self.in_head = False
        self.refusal: Refusal | None = None
        self._limits = limits
        self._heads = heads
        self._found = found
        self._parser = httptools.HttpRequestParser(self)
        self._shape: Shape | None = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._length: int | None = None
        self._head_bytes = 0
        self._lines = 0
        self._fruitless = 0
        self._got_on = False
        self._last: Request | None = None  # of the bytes that are fed now
        self._count = 0
        self._repeated = False  # the last head was the one before it

    def known(self, data: bytes) -> Request | None:
        """Return the whole request that ``data`` is, if nothing has to be parsed for it."""
        if self.in_head or self.coming is not None or self.refusal is not None:
            return None
        request = self._heads.request(data)
        if request is not None:
            self._fruitless = 0
        return request

    def feed(self, data: bytes) -> None:
        """Parse what came.

        Raises:
            Refused: with the answer in ``refusal``.
            Upgrading: the last request wants another protocol.
        """
        between = not self.in_head and self.coming is None
        self._got_on, self._count = False, 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise Upgrading(error.args[0]) from error
        except httptools.HttpParserError as error:  # the parser's own, or a callback's Refused
            self.refusal = self.refusal or MALFORMED
            raise Refused from error
        self._fruitless = 0 if self._got_on else self._fruitless + len(data)
        if self._fruitless > self._limits.max_head_bytes:
            self.refusal = HEAD_TOO_LARGE
            raise Refused
        request, self._last = self._last, None
        alone = between and self._count == 1 and self._repeated
        if alone and request is not None and request.complete:
            self._heads.learn(data, request)

    # The parser's side.

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        self._got_on = self.in_head = True
        self._head_bytes = self._lines = 0
        self._url = b""
        self._headers = []
        self._length = None

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._add(len(url))
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is counted and dropped."""
        self._lines += 1
        self._add(len(name) + len(value))
        if not self.in_head:
            return
        name = name.lower()
        if name == b"content-length":
            self._length = int(value)
        else:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin a request; its head came in time."""
        self._got_on, self.in_head = True, False
        if self.refusal is not None:
            raise Refused
        shape = self._shape = self._shape_of_head()
        keep_alive = self._parser.should_keep_alive()
        switches = bool(shape.upgrade) and self._parser.should_upgrade()
        if switches and self._has_body(shape):
            self.refusal = MALFORMED  # the parser would take its body for another protocol's bytes
            raise Refused
        if shape.upgrade and shape.asks_for_websocket:
            keep_alive = False  # a handshake, sound or not, is a connection's last request
        request = Request(shape, length=self._length, keep_alive=keep_alive, switches=switches)
        self.coming = self._last = request
        self._count += 1
        self._found(request)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._got_on = True
        assert self.coming is not None
        self.coming.take(body)

    def on_message_complete(self) -> None:
        """End a request's body."""
        self._got_on = True
        assert self.coming is not None
        self.coming.complete = True
        self.coming = None
        self.in_head = False

    # Inside.

    def _shape_of_head(self) -> Shape:
        """Return the head's shape: the last request's, if that had the same."""
        parser, shape, headers = self._parser, self._shape, tuple(self._headers)
        method, version = parser.get_method(), parser.get_http_version()
        if (
            shape is not None
            and shape.headers == headers
            and shape.url == self._url
            and shape.method.encode() == method
            and shape.version == version
        ):
            self._repeated = True
            return shape
        self._repeated = False
        has_length = self._length is not None
        try:
            return shape_of(method, version, self._url, headers, has_length=has_length)
        except Malformed as error:
            self.refusal = MALFORMED
            raise Refused from error

    def _has_body(self, shape: Shape) -> bool:
        return bool(self._length) or any(name == _CODING for name, _ in shape.headers)

    def _add(self, size: int) -> None:
        self._got_on = True
        self._head_bytes += size
        limits = self._limits
        if self._head_bytes > limits.max_head_bytes or self._lines > limits.max_header_lines:
            self.refusal = HEAD_TOO_LARGE
            raise Refused
