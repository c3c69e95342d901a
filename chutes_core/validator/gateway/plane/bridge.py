"""Any request as an ASGI scope: the control plane's, and calls that take the reference's way.

Path: http -> bridge -> front or the control plane. Invariants: an answer that its application did
not complete is cut, never completed; a body is read from the caller no faster than the application
reads it; after the caller has left, what the application still sends goes nowhere.
"""

import asyncio
from math import inf
from typing import TYPE_CHECKING

from loguru import logger

from chutes_core.validator.gateway.asgi import AsgiApp, Message, Scope
from chutes_core.validator.gateway.plane.heads import (
    CHUNKED,
    CLOSE,
    CONTINUE,
    LAST_CHUNK,
    chunk,
    has_body,
    header_lines,
    status_line,
)
from chutes_core.validator.gateway.plane.request import Request
from chutes_core.validator.gateway.upgrades import CALLER_STREAM
from chutes_core.wire.call import SWITCHING as SWITCHING_STATUS
from chutes_core.wire.stream import UPGRADE

if TYPE_CHECKING:
    from chutes_core.validator.gateway.plane.http import Connection

_WEBSOCKET = "websocket"
STREAM = "chutes.stream"
"""ASGI extension of a request that may become a byte stream: the application starts its answer with
status 101, and from then on what it receives and sends are pieces of the stream."""
SWITCHING = (
    f"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {UPGRADE}\r\n\r\n"
).encode()
UPGRADED = b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"


class Bridge:
    """One request that an ASGI application answers."""

    def __init__(
        self, connection: "Connection", request: Request, *, is_call: bool, is_read: bool = False
    ) -> None:
        self._connection = connection
        self._request = request
        self._left = False
        self._begun = False
        self._ended = False
        self._status = 0
        self._chunked = False
        self._bodiless = False
        self._promised: int | None = None
        self._sent = 0
        self._continued = not request.shape.expects
        self._asked_close = False
        self._keep = False
        self._streams = False
        self._may_switch = is_call and request.shape.asks_for_websocket
        self._receiving: asyncio.Event = asyncio.Event()
        self._writable: asyncio.Event = asyncio.Event()
        self.answers_after_eof = not is_call
        self._connected = is_read  # or, of a websocket, its handshake
        self.task: asyncio.Task[None] | None = None
        if connection.writable:
            self._writable.set()

    @property
    def begun(self) -> bool:
        """Tell whether a byte of the answer has been sent."""
        return self._begun

    @property
    def is_websocket(self) -> bool:
        """Tell whether the request asks for a websocket of the control plane."""
        return not self._may_switch and self._request.shape.upgrade == _WEBSOCKET.encode()

    def scope(self) -> Scope:
        """Return the request as an ASGI scope, version 3.0."""
        shape, connection = self._request.shape, self._connection
        headers = list(shape.headers)
        if self._request.length is not None:
            headers.append((b"content-length", str(self._request.length).encode()))
        websocket = self.is_websocket
        secure = connection.plane.secure
        common: Scope = {
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": shape.version,
            "server": connection.server,
            "client": connection.address,
            "path": shape.path,
            "raw_path": shape.raw_path,
            "query_string": shape.query,
            "root_path": "",
            "headers": headers,
            "state": {},
        }
        if websocket:
            scheme = "wss" if secure else "ws"
            more: Scope = {"subprotocols": [], "extensions": {"websocket.http.response": {}}}
            return {"type": "websocket", "scheme": scheme, **more, **common}
        scheme = "https" if secure else "http"
        if self._may_switch:
            common["extensions"] = {CALLER_STREAM: self}
        elif self._request.is_stream:
            common["extensions"] = {STREAM: {}}
        return {"type": "http", "scheme": scheme, "method": shape.method, **common}

    async def run(self, app: AsgiApp) -> None:
        """Have an application answer; what it leaves unfinished is cut."""
        try:
            await app(self.scope(), self.receive, self.send)
        except Exception:  # noqa: BLE001 - the edge: an application's failure ends one answer only
            logger.exception("A request failed unexpectedly")
            if not self._begun and not self._left:
                await self._start(500, [(b"content-length", b"21"), (b"connection", b"close")])
                await self._body(b"Internal Server Error", more=False)
        finally:
            self._finish()

    # The application's side.

    async def receive(self) -> Message:
        """Return the next piece of the body, or that the caller has left."""
        if self.is_websocket:
            return await self._receive_websocket()
        if self._streams:
            return await self._receive_stream()
        request = self._request
        while not (self._left or self._ended or request.chunks or request.complete):
            self._continue()
            self._by(self._connection.plane.body_timeout_s)
            await self._wait()
            self._by(None if self._connection.writable else self._connection.plane.unread_s)
        if self._left or self._ended:
            return {"type": "http.disconnect"}
        if request.is_stream and not self._connected:
            self._connected = True  # it has no body: what came behind it is the stream's
            return {"type": "http.request", "body": b"", "more_body": False}
        if (request.is_stream or not request.chunks) and request.complete and self._connected:
            await self._until_over()
            return {"type": "http.disconnect"}
        body = request.body()
        request.chunks, request.size = [], 0
        self._connected = request.complete
        self._connection.balance()
        return {"type": "http.request", "body": body, "more_body": not request.complete}

    async def send(self, message: Message) -> None:
        """Send a piece of the answer, waiting while the caller reads more slowly."""
        kind = message["type"].removeprefix("websocket.")
        if kind == "http.response.start":
            await self._start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body":
            await self._body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "close" and not self._begun:
            await self._start(403, [(b"content-length", b"0"), (b"connection", b"close")])
            await self._body(b"", more=False)
        elif kind not in ("close",):
            raise RuntimeError(f"{message['type']} is not served here")

    # The application's side of a call's websocket (gateway/upgrades.CallerStream).

    @property
    def sound(self) -> bool:
        """Tell whether a byte stream can follow: a GET of HTTP/1.1 that switches, with no body."""
        return self._request.is_stream

    async def next_piece(self) -> bytes | None:
        """Return what came next on the websocket; None where it has to end, for the server does.

        A caller who leaves is told by `left` alone.
        """
        request, plane = self._request, self._connection.plane
        while not (request.chunks or plane.stopping):
            await self._wait()
        if plane.stopping:
            return None
        piece = request.body()
        request.chunks, request.size = [], 0
        self._connection.balance()
        return piece

    async def left(self) -> None:
        """Return once the caller has left."""
        while not self._left:
            await self._wait()

    # The connection's side.

    def on_body(self) -> None:
        """More of the body has come, or its end; or the server stops."""
        self._receiving.set()

    def on_writable(self, *, writable: bool) -> None:
        """Let `send` wait, or go on."""
        if writable:
            self._writable.set()
            self._by(None)
        else:
            self._writable.clear()
            self._by(self._connection.plane.unread_s)

    def on_deadline(self, now: float) -> None:
        """Cut off a caller who neither takes the answer nor sends the body.

        Only the control plane's callers get here: calls have deadlines of their own.
        """
        del now
        self.on_caller_left()
        self._connection.cut()

    def on_caller_left(self) -> None:
        """Tell the application when it asks next."""
        self._left = True
        self._receiving.set()
        self._writable.set()

    # Inside.

    def _continue(self) -> None:
        """Say that the body may come, once somebody wants to read it."""
        if not self._continued and not self._begun:
            self._continued = True
            self._connection.transport.write(CONTINUE)

    async def _wait(self) -> None:
        self._receiving.clear()
        await self._receiving.wait()

    def _by(self, seconds: float | None) -> None:
        """Have the connection looked at after some time, or no more."""
        if self.answers_after_eof and not (self._left or self._ended):
            plane = self._connection.plane
            self._connection.deadline = inf if seconds is None else plane.now() + seconds

    async def _receive_stream(self) -> Message:
        """Return the next piece of a stream; its caller is not timed here."""
        request = self._request
        while not (self._left or self._ended or request.chunks):
            await self._wait()
        if self._left or self._ended:
            return {"type": "http.disconnect"}
        body = request.body()
        request.chunks, request.size = [], 0
        self._connection.balance()
        return {"type": "http.request", "body": body, "more_body": True}

    async def _until_over(self) -> None:
        while not (self._left or self._ended):
            await self._wait()

    async def _receive_websocket(self) -> Message:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        await self._until_over()
        return {"type": "websocket.disconnect", "code": 1006}

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if self._begun:
            raise RuntimeError("the answer has begun already")
        if self._left:
            return
        if status == SWITCHING_STATUS:
            await self._start_stream(headers)
            return
        shape = self._request.shape
        pairs = [(name.lower(), value) for name, value in headers]
        named = dict(pairs)
        self._bodiless = not has_body(shape.method, status)
        if b"content-length" in named and not self._bodiless:
            self._promised = int(named[b"content-length"])
        self._asked_close = named.get(b"connection", b"").lower() == b"close"
        parts = [status_line(status), self._connection.plane.date(), header_lines(pairs)]
        if self._promised is None and not self._bodiless:
            self._chunked = shape.version == "1.1"
            if not self._chunked:
                self._request.keep_alive = False
        self._keep = self._keeps()
        if not (self._keep or self._asked_close):
            parts.append(CLOSE)
        if self._chunked:
            parts.append(CHUNKED)
        parts.append(b"\r\n")
        self._begun = True
        self._status = status
        self._connection.transport.write(b"".join(parts))
        await self._writable.wait()

    async def _start_stream(self, headers: list[tuple[bytes, bytes]]) -> None:
        if not self._request.is_stream:
            raise RuntimeError("a stream that was not asked for")
        head = SWITCHING
        if self._may_switch:
            date = self._connection.plane.date()
            head = b"".join((status_line(SWITCHING_STATUS), date, header_lines(headers), UPGRADED))
        self._begun = self._streams = True
        self._status = SWITCHING_STATUS
        self._connection.transport.write(head)
        await self._writable.wait()

    def _keeps(self) -> bool:
        request = self._request
        return (
            request.keep_alive
            and request.rest_is_small()
            and (self._continued or request.complete)  # else the body may never be sent
            and not (self._asked_close or self._connection.plane.stopping)
        )

    async def _body(self, data: bytes, *, more: bool) -> None:
        if self._left:
            return
        if not self._begun or self._ended:
            raise RuntimeError("a piece of a body outside of an answer")
        if self._bodiless:
            data = b""
        self._sent += len(data)
        if self._promised is not None and self._sent > self._promised:
            raise RuntimeError("more than the content-length")
        if self._chunked:
            framed = chunk(data) if data else b""
            data = framed if more else framed + LAST_CHUNK
        if data:
            self._connection.transport.write(data)
        if more:
            await self._writable.wait()
            return
        if self._promised is not None and self._sent < self._promised:
            raise RuntimeError("less than the content-length")
        self._ended = True
        self._receiving.set()
        self._connection.answered(keep=self._keep)

    def _finish(self) -> None:
        """Cut an answer that has no end."""
        if not (self._left or self._ended):
            self._left = True
            self._connection.cut()
