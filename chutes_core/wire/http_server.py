"""HTTP as both neurons serve it: uvicorn on httptools, with a bound on all that precedes a request.

Path: socket -> here -> gateway/front or wire/neuron_http. uvicorn bounds neither the size of a
request's head nor the time it may take; this protocol does, and answers what is no HTTP in the form
of every error of ours. Invariant: a connection is always in one of three states, each with an end:
a head is awaited (`head_timeout_s`), a request runs (the application's own limits), or it idles
(`keep_alive_s`); and bytes that lead to no header, body or request are at most `max_head_bytes`.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chutes_core.base.failures import network_of

MAX_HEAD_BYTES = 128 * 1024
MAX_HEADER_LINES = 256
HEAD_TIMEOUT_S = 20.0
KEEP_ALIVE_S = 65
MAX_CONNECTIONS = 4096
MAX_CONNECTIONS_PER_ADDRESS = 1024
REFUSED_TIMEOUT_S = 2.0
LINGER_S = 1.0  # a close with bytes unread would take the answer back from its reader
SPARE_CONNECTIONS = 64
BACKLOG = 2048


@dataclass(frozen=True)
class HttpLimits:
    """Bounds of one server.

    Attributes:
        max_head_bytes: of request line and headers together, trailers too (431 above).
        max_header_lines: of one request (431 above).
        head_timeout_s: from the connection, or the first byte after an answer, to the head's end
            (408 once a request has begun, else the connection is closed).
        keep_alive_s: of an idle connection after an answer (closed).
        max_connections: open at once (503 above; `SPARE_CONNECTIONS` more are told so, and
            connections beyond these are cut).
        max_per_address: open at once from one address (429 above); None behind a proxy.
    """

    max_head_bytes: int = MAX_HEAD_BYTES
    max_header_lines: int = MAX_HEADER_LINES
    head_timeout_s: float = HEAD_TIMEOUT_S
    keep_alive_s: int = KEEP_ALIVE_S
    max_connections: int = MAX_CONNECTIONS
    max_per_address: int | None = MAX_CONNECTIONS_PER_ADDRESS


@dataclass(frozen=True)
class Refusal:
    """What is answered where the application is not asked."""

    status: HTTPStatus
    code: str
    detail: str
    hint: str

    def encode(self) -> bytes:
        """Return the whole response."""
        body = json.dumps({"detail": self.detail, "code": self.code, "hint": self.hint}).encode()
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
            *(["retry-after: 5"] if self.status.value in (429, 503) else []),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


MALFORMED = Refusal(
    HTTPStatus.BAD_REQUEST,
    "malformed_http",
    "this is no HTTP/1.1 request",
    "one Content-Length or Transfer-Encoding, lines that end in CRLF, no control characters",
)
HEAD_TOO_LARGE = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "head_too_large",
    "the request's line and headers are too large or too many",
    "send fewer and shorter headers; data belongs into the body",
)
HEAD_TIMEOUT = Refusal(
    HTTPStatus.REQUEST_TIMEOUT,
    "head_timeout",
    "the request's headers did not arrive in time",
    "send the whole head at once",
)
SERVER_FULL = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "server_full",
    "too many connections are open here",
    "try again in a moment",
)
ADDRESS_FULL = Refusal(
    HTTPStatus.TOO_MANY_REQUESTS,
    "too_many_connections",
    "too many connections are open from this address",
    "use fewer connections and keep them open",
)


class Server(uvicorn.Server):
    """Leaves signals to the neuron's entrance, which stops everything in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def new_server(
    app: Any, limits: HttpLimits | None = None, *, grace_s: int, proxies: str | None = None
) -> Server:
    """Return a server for an ASGI application; it serves sockets that were bound before.

    Args:
        app: bounds what happens from the head of a request on.
        limits: the bounds before that.
        grace_s: for requests that run when the server is told to stop.
        proxies: addresses whose X-Forwarded-For is believed (comma-separated); None believes none.
    """
    limits = limits or HttpLimits()
    config = uvicorn.Config(
        app,
        http=_protocol(limits),
        lifespan="off",
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        server_header=False,
        proxy_headers=proxies is not None,
        forwarded_allow_ips=proxies or "",
        timeout_keep_alive=limits.keep_alive_s,
        timeout_graceful_shutdown=grace_s,
    )
    return Server(config)


class _Refused(Exception):
    """Ends the parsing of a request that `_refusal` answers."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection within `limits`; `by_address` is shared by a server's connections."""

    limits: ClassVar[HttpLimits]
    by_address: ClassVar["Counter[str]"]

    _address: str | None = None
    _refusal: Refusal | None = None
    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _header_lines = 0
    _got_on = False
    _fruitless_bytes = 0
    _answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and await its first request for a bounded time."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._address = network_of(self.client[0] if self.client else None)
        self.by_address[self._address] += 1
        limits = self.limits
        over = len(self.connections) - limits.max_connections
        if over > SPARE_CONNECTIONS:
            self.transport.abort()
        elif over > 0:
            self._refusal = SERVER_FULL
        elif limits.max_per_address and self.by_address[self._address] > limits.max_per_address:
            self._refusal = ADDRESS_FULL
        self._arm(REFUSED_TIMEOUT_S if self._refusal else limits.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._leave()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to the handshake's protocol, which the front refuses."""
        self._leave()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless nothing came of what was sent before."""
        if self._answered or self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._timer is None:
            self._arm(self.limits.head_timeout_s)
        self._got_on = False
        super().data_received(data)
        self._fruitless_bytes = 0 if self._got_on else self._fruitless_bytes + len(data)
        if self._fruitless_bytes > self.limits.max_head_bytes and not self._answered:
            self._refusal = HEAD_TOO_LARGE
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser, or a bound, refused; an answer that began is cut."""
        del msg
        self._disarm()
        self._answered = True
        begun = self.cycle is not None and self.cycle.response_started
        if self.transport.is_closing() or (begun and not self.cycle.response_complete):
            self.transport.close()
            return
        self.transport.write((self._refusal or MALFORMED).encode())
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.close)

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        self._got_on = self._in_head = True
        self._head_bytes = self._header_lines = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count a piece of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header or a trailer."""
        self._header_lines += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass the request on; its head came in time."""
        self._got_on, self._in_head = True, False
        self._disarm()
        if self._refusal is not None:
            raise _Refused
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body on."""
        self._got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request's body."""
        self._got_on = True
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: such a request is answered like any other."""

    def _count(self, size: int) -> None:
        self._got_on = True
        self._head_bytes += size
        limits = self.limits
        if self._head_bytes > limits.max_head_bytes or self._header_lines > limits.max_header_lines:
            self._refusal = HEAD_TOO_LARGE
            raise _Refused

    def _arm(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._in_head:
            self._refusal = self._refusal or HEAD_TIMEOUT
            self.send_400_response("")
        else:
            self.transport.close()

    def _leave(self) -> None:
        self._disarm()
        if self._address is not None:
            self.by_address[self._address] -= 1
            if not self.by_address[self._address]:
                del self.by_address[self._address]
            self._address = None


def _protocol(limits: HttpLimits) -> type[GuardedProtocol]:
    """Return the protocol of one server's connections."""
    return type("BoundProtocol", (GuardedProtocol,), {"limits": limits, "by_address": Counter()})
