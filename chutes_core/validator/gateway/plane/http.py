"""One caller's connection: HTTP/1.1 in, requests out, one at a time.

Path: socket -> here -> fast (an ordinary call, whole at hand) or bridge (everything else).
Invariants: a connection is always in one state that has an end in time (`deadline`); bytes that
lead to no request are bounded; what is not read in exactly one way is answered with 400 and the
connection closed; requests that come before an answer has ended wait, and reading stops meanwhile.
"""

import asyncio
from math import inf
from typing import TYPE_CHECKING, Protocol

import httptools

from chutes_core.base.failures import network_of
from chutes_core.validator.gateway.plane.request import (
    SMALL_BYTES,
    Malformed,
    Request,
    Shape,
    shape_of,
)
from chutes_core.wire.http_server import (
    ADDRESS_FULL,
    HEAD_TIMEOUT,
    HEAD_TOO_LARGE,
    LINGER_S,
    MALFORMED,
    REFUSED_TIMEOUT_S,
    SERVER_FULL,
    SPARE_CONNECTIONS,
    Refusal,
)

if TYPE_CHECKING:
    from chutes_core.validator.gateway.plane.server import Plane

WHOLE_WAIT_S = 1.0
BUFFERED_BYTES = 64 * 1024  # of a body that the control plane or the reference has not read yet


class Handler(Protocol):
    """Answers one request."""

    @property
    def begun(self) -> bool:
        """Tell whether a byte of the answer has been sent."""
        ...

    @property
    def answers_after_eof(self) -> bool:
        """Tell whether an answer still goes out to a caller who has closed their side.

        A call is stopped at its instance, for a caller who has gone looks just the same.
        """
        ...

    def on_body(self) -> None:
        """More of the body has come, or its end."""
        ...

    def on_writable(self, *, writable: bool) -> None:
        """The caller reads more slowly than we write, or has caught up."""
        ...

    def on_deadline(self, now: float) -> None:
        """The time that the handler set on the connection is over."""
        ...

    def on_caller_left(self) -> None:
        """Nobody waits for the answer any more."""
        ...


class _Refused(Exception):
    """Ends the parsing of a request that is answered by a Refusal."""


class Connection(asyncio.Protocol):
    """Attributes: ``deadline``, on the loop's clock; ``writable``, whether the caller keeps up."""

    def __init__(self, plane: "Plane") -> None:
        self.plane = plane
        self.gone = False  # the connection is closed, and whoever answers was told
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.address: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self.deadline = inf
        self.writable = True
        self._network: str | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._refusal: Refusal | None = None
        self._handler: Handler | None = None
        self._current: Request | None = None  # what is answered now
        self._coming: Request | None = None  # what is parsed now
        self._queued: list[Request] = []
        self._shape: Shape | None = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._length: int | None = None
        self._head_bytes = 0
        self._lines = 0
        self._fruitless = 0
        self._in_head = False
        self._got_on = False
        self._reading = True
        self._over = False  # nothing is parsed any more
        self._eof = False

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and await its first request for a bounded time."""
        self.transport = transport  # type: ignore[assignment]
        self.address = _address(transport.get_extra_info("peername"))
        self.server = _address(transport.get_extra_info("sockname"))
        plane, limits = self.plane, self.plane.limits
        self._network = network_of(self.address[0] if self.address else None)
        mine = plane.joined(self, self._network)
        over = len(plane.connections) - limits.max_connections
        if over > SPARE_CONNECTIONS:
            self.transport.abort()
        elif over > 0:
            self._refusal = SERVER_FULL
        elif limits.max_per_address and mine > limits.max_per_address:
            self._refusal = ADDRESS_FULL
        wait_s = REFUSED_TIMEOUT_S if self._refusal else limits.head_timeout_s
        self.deadline = plane.now() + wait_s

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless nothing came of what was sent before."""
        if self._over:
            return
        if self._current is None and not self._in_head:
            limit = self.plane.now() + self.plane.limits.head_timeout_s
            self.deadline = min(self.deadline, limit)
        self._got_on = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._over = True  # answered as plain HTTP, then closed
            self._step()
        except httptools.HttpParserError:  # of the parser's own, or a callback's _Refused
            self._refuse()
        else:
            self._fruitless = 0 if self._got_on else self._fruitless + len(data)
            if self._fruitless > self.plane.limits.max_head_bytes:
                self._refusal = HEAD_TOO_LARGE
                self._refuse()
            else:
                self._step()

    def eof_received(self) -> bool:
        """Take a half-close as the caller's leaving while a call runs (see docs/gateway.md).

        So it is also where the rest of a body can never come.
        """
        self._eof = True
        handler, request = self._handler, self._current
        whole = request is not None and request.complete
        return whole and handler is not None and handler.answers_after_eof

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell whoever answers on it."""
        del exc
        self._over = self.gone = True
        self.deadline = inf
        self.plane.left(self, self._network)
        self._queued.clear()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.on_caller_left()

    def pause_writing(self) -> None:
        """Tell the handler that the caller does not keep up."""
        self.writable = False
        if self._handler is not None:
            self._handler.on_writable(writable=False)

    def resume_writing(self) -> None:
        """Tell the handler that the caller has caught up."""
        self.writable = True
        if self._handler is not None:
            self._handler.on_writable(writable=True)

    # The parser's side.

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        self._got_on = self._in_head = True
        self._head_bytes = self._lines = 0
        self._url = b""
        self._headers = []
        self._length = None

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._count(len(url))
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is counted and dropped."""
        self._lines += 1
        self._count(len(name) + len(value))
        if not self._in_head:
            return
        name = name.lower()
        if name == b"content-length":
            self._length = int(value)
        else:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin a request; its head came in time."""
        self._got_on, self._in_head = True, False
        if self._refusal is not None:
            raise _Refused
        parser = self._parser
        method, version = parser.get_method(), parser.get_http_version()
        shape = self._shape
        headers = tuple(self._headers)
        if (
            shape is None
            or shape.headers != headers
            or shape.url != self._url
            or shape.method.encode() != method
            or shape.version != version
        ):
            try:
                shape = self._shape = shape_of(
                    method, version, self._url, headers, has_length=self._length is not None
                )
            except Malformed as error:
                self._refusal = MALFORMED
                raise _Refused from error
        request = Request(shape, length=self._length, keep_alive=parser.should_keep_alive())
        self._coming = request
        if self._current is None:
            self._current = request
        else:
            self._queued.append(request)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._got_on = True
        assert self._coming is not None
        self._coming.take(body)

    def on_message_complete(self) -> None:
        """End a request's body."""
        self._got_on = True
        assert self._coming is not None
        self._coming.complete = True
        self._coming = None
        self._in_head = False

    def _count(self, size: int) -> None:
        self._got_on = True
        self._head_bytes += size
        limits = self.plane.limits
        if self._head_bytes > limits.max_head_bytes or self._lines > limits.max_header_lines:
            self._refusal = HEAD_TOO_LARGE
            raise _Refused

    # Between requests.

    def _step(self) -> None:
        """Go on after bytes have come: begin an answer, or tell who answers that there is more."""
        request = self._current
        if request is None:
            return
        if self._handler is not None:
            if self._coming is request or request.complete:
                self._handler.on_body()
        elif request.complete:
            self._begin(request)
        elif self._may_wait(request):
            wait_s = min(WHOLE_WAIT_S, self.plane.body_timeout_s)
            self.deadline = min(self.deadline, self.plane.now() + wait_s)
        else:
            self._begin(request)
        self.balance()

    def _may_wait(self, request: Request) -> bool:
        """Tell whether the rest of a body is worth a short wait: it is small and announced."""
        length = request.length
        return length is not None and length <= SMALL_BYTES and not request.shape.expects

    def _begin(self, request: Request) -> None:
        self.deadline = inf
        self.plane.answer(self, request)

    def taken_by(self, handler: Handler) -> None:
        """Note who answers the current request."""
        self._handler = handler

    def answered(self, *, keep: bool) -> None:
        """End the current request's answer; ``keep`` the connection if its caller wants so too."""
        request, self._current, self._handler = self._current, None, None
        assert request is not None
        if self.transport.is_closing():
            return
        request.dropped = True
        if not (keep and request.keep_alive and request.rest_is_small()) or self.plane.stopping:
            self._close_soon(request)
            return
        self.deadline = self.plane.now() + self.plane.limits.keep_alive_s
        if self._queued:
            self._current = self._queued.pop(0)
            asyncio.get_running_loop().call_soon(self._next)
        elif self._over or self._eof:
            self._close_soon(request)
        self.balance()

    def _next(self) -> None:
        if self._handler is None and not self.transport.is_closing():
            self._step()

    def _close_soon(self, request: Request) -> None:
        """Close once all is sent; a body that still comes would take the answer back."""
        self._over = True
        self._queued.clear()
        if request.complete:
            self.transport.close()
            return
        self._linger()

    def _linger(self) -> None:
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.deadline = self.plane.now() + LINGER_S
        self._set_reading(reading=True)

    def _refuse(self) -> None:
        """Answer what the parser, or a bound, refused; an answer that began is cut.

        A request behind the one that is answered is dropped, and that answer is the last.
        """
        self._over = True
        self._queued.clear()
        handler, current = self._handler, self._current
        if handler is not None and current is not None and self._coming is not current:
            current.keep_alive = False
            return
        self._handler = self._current = None
        if handler is not None:
            begun = handler.begun
            handler.on_caller_left()
            if begun:
                self.cut()
        if not self.transport.is_closing():
            self.transport.write((self._refusal or MALFORMED).encode())
            self._linger()

    def cut(self) -> None:
        """Close an answer that has no end: what was sent may still leave, for a moment."""
        self._over = True
        self._handler = self._current = None
        self._queued.clear()
        self.transport.close()
        self.deadline = self.plane.now() + LINGER_S

    def overdue(self, now: float) -> None:
        """Act on a deadline that has passed."""
        self.deadline = inf
        if self._handler is not None:
            self._handler.on_deadline(now)
        elif self._over:
            self.transport.abort()
        elif self._current is not None:
            self._begin(self._current)
            self.balance()
        elif self._in_head:
            self._refusal = self._refusal or HEAD_TIMEOUT
            self._refuse()
        else:
            self.transport.close()

    def stop(self) -> None:
        """Close if nothing is answered; else after the answer."""
        if self._current is None:
            self._over = True
            self.transport.close()

    # Back-pressure towards the caller.

    def balance(self) -> None:
        """Read on, unless a request waits for its turn or a body for its reader."""
        coming = self._coming or self._current
        behind = coming is not None and self._handler is not None and coming.size > BUFFERED_BYTES
        self._set_reading(reading=self._over or not (self._queued or behind))

    def _set_reading(self, *, reading: bool) -> None:
        if reading != self._reading and not self.transport.is_closing():
            self._reading = reading
            if reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()


def _address(name: object) -> tuple[str, int] | None:
    if isinstance(name, tuple) and len(name) >= 2:
        return (str(name[0]), int(name[1]))
    return None
