"""The server: websockets and plain HTTP on one port; frames in, frames out, limits.

Invariant: a slow reader never holds up the chain; its outbox is bounded and it is cut off when it
is full. Bounds: MAX_CONNECTIONS connections, MAX_BODY_BYTES a message, MAX_BATCH requests a batch.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from loguru import logger
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from chutes_core.devnet.faults import Loss
from chutes_core.devnet.front import Front
from chutes_core.devnet.rpc import INVALID_REQUEST, Rpc, RpcError

MAX_CONNECTIONS = 256
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_BATCH = 1_024
MAX_OUTBOX = 8_192
ARCHIVE_PATH = "/archive"  # reads state that the fault prune_state hides elsewhere

_PARSE_ERROR = -32700
_INTERNAL_ERROR = -32603
_CLOSE_TIMEOUT_S = 0.5
_TRY_AGAIN_LATER = 1013


class Connection:
    """One client: its outbox and its subscriptions.

    Args:
        socket: the accepted websocket.
    """

    can_subscribe = True

    def __init__(self, socket: ServerConnection) -> None:
        self.subscriptions: dict[str, Callable[[], None]] = {}
        self.is_archive = socket.request is not None and socket.request.path == ARCHIVE_PATH
        self._socket = socket
        self._outbox: asyncio.Queue[str] = asyncio.Queue(MAX_OUTBOX)
        self._held: list[dict[str, Any]] | None = None
        self._overflow = asyncio.Event()

    def later(self, message: dict[str, Any]) -> None:
        """Queue a notification, behind the answer when a request is being handled."""
        if self._held is not None:
            self._held.append(message)
        else:
            self._put(message)

    def answer(self, rpc: Rpc, text: str | bytes) -> None:
        """Handle one message and queue its answer, then what it set off."""
        message = _parse(text)
        loss = rpc.faults.take_loss(_methods(message)) if rpc.faults.losses else None
        self._held = []
        reply = None if loss is not None and not loss.processed else _reply(rpc, self, message)
        held, self._held = self._held, None
        if loss is not None:
            self._lose(loss)
            return
        if reply is not None:
            self._put(reply)
        for notification in held:
            self._put(notification)

    def abort(self) -> None:
        """Break the connection without a closing frame."""
        self._socket.transport.abort()

    def _lose(self, loss: Loss) -> None:
        self.end()
        if loss.close:
            self.abort()

    async def write(self) -> None:
        """Send what is queued until the client is gone or too slow."""
        sending = asyncio.create_task(self._send_all())
        overflow = asyncio.create_task(self._overflow.wait())
        try:
            await asyncio.wait({sending, overflow}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            overflow.cancel()
            await asyncio.gather(sending, overflow, return_exceptions=True)
        if self._overflow.is_set():
            logger.warning("a client that does not read was cut off")
            await self._socket.close(_TRY_AGAIN_LATER, "too slow")

    async def _send_all(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self._socket.send(await self._outbox.get())

    def end(self) -> None:
        """End all subscriptions."""
        for end in self.subscriptions.values():
            end()
        self.subscriptions.clear()

    def _put(self, message: Any) -> None:
        try:
            self._outbox.put_nowait(json.dumps(message, separators=(",", ":")))
        except asyncio.QueueFull:
            self._overflow.set()


class HttpSession:
    """One request over plain HTTP: nothing can be subscribed to."""

    can_subscribe = False

    def __init__(self, *, is_archive: bool) -> None:
        self.subscriptions: dict[str, Callable[[], None]] = {}
        self.is_archive = is_archive

    def later(self, message: dict[str, Any]) -> None:
        """Drop a notification; no method that makes one is answered here."""


class _Service:
    """What all connections share."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        self.open: set[Connection] = set()
        rpc.faults.on_drop.append(self.drop)

    async def talk(self, socket: ServerConnection) -> None:
        """Serve one websocket until it ends."""
        connection = Connection(socket)
        self.open.add(connection)
        writer = asyncio.create_task(connection.write())
        try:
            with suppress(ConnectionClosed):
                async for text in socket:
                    connection.answer(self.rpc, text)
        finally:
            self.open.discard(connection)
            connection.end()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def post(self, path: str, body: bytes) -> bytes | None:
        """Answer one POST; None when the fault of the day is to break the connection."""
        message = _parse(body)
        faults, methods = self.rpc.faults, _methods(message)
        is_control = bool(methods) and all(method.startswith("dev_") for method in methods)
        if faults.refuse_connections and not is_control:
            return None
        loss = faults.take_loss(methods) if faults.losses else None
        if loss is not None and not loss.processed:
            return None
        reply = _reply(self.rpc, HttpSession(is_archive=path == ARCHIVE_PATH), message)
        if loss is not None:
            return None
        return b"" if reply is None else json.dumps(reply, separators=(",", ":")).encode()

    def admit(self, socket: ServerConnection, _request: Request) -> Response | None:
        """Turn a websocket away when there are too many, or when a fault says so."""
        if self.rpc.faults.refuse_connections:
            socket.transport.abort()
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "refused by a devnet fault\n")
        if len(self.open) < MAX_CONNECTIONS:
            return None
        return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")

    def drop(self) -> int:
        """Break all websockets; return how many there were."""
        for connection in self.open:
            connection.abort()
        return len(self.open)


async def start_server(rpc: Rpc, host: str, port: int) -> Server:
    """Listen; ``port`` 0 takes a free one."""
    service = _Service(rpc)

    class Bound(Front):
        """A connection of this server."""

        max_body_bytes = MAX_BODY_BYTES

        def post(self, path: str, body: bytes) -> bytes | None:
            return service.post(path, body)

    return await serve(
        service.talk,
        host,
        port,
        max_size=MAX_BODY_BYTES,
        process_request=service.admit,
        compression=None,
        close_timeout=_CLOSE_TIMEOUT_S,
        create_connection=Bound,
    )


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _Unreadable


class _Unreadable:
    """Stands for a message that is not JSON."""


def _methods(message: Any) -> list[str]:
    requests = message if isinstance(message, list) else [message]
    named = [request.get("method") for request in requests if isinstance(request, dict)]
    return [method for method in named if isinstance(method, str)]


def _reply(rpc: Rpc, session: Any, message: Any) -> Any:
    if message is _Unreadable:
        return {"jsonrpc": "2.0", "error": _error(_PARSE_ERROR, "Parse error"), "id": None}
    if not isinstance(message, list):
        return _guarded(rpc, session, message)
    if not 0 < len(message) <= MAX_BATCH:
        error = _error(INVALID_REQUEST, f"a batch holds 1 to {MAX_BATCH} requests")
        return {"jsonrpc": "2.0", "error": error, "id": None}
    replies = [_guarded(rpc, session, request) for request in message]
    return [reply for reply in replies if reply is not None] or None


def _guarded(rpc: Rpc, session: Any, request: Any) -> Any:
    try:
        return rpc.handle(session, request)
    except Exception:  # noqa: BLE001 - the edge: a defect is logged and answered, never a hang
        logger.exception("a request could not be answered")
        identity = request.get("id") if isinstance(request, dict) else None
        error = _error(_INTERNAL_ERROR, "Internal error of devnet, see its log")
        return {"jsonrpc": "2.0", "error": error, "id": identity}


def _error(code: int, message: str) -> dict[str, Any]:
    return RpcError(code, message).body()
