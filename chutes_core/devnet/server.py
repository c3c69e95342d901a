"""The websocket server: frames in, frames out, limits.

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

from chutes_core.devnet.rpc import INVALID_REQUEST, Rpc, RpcError

MAX_CONNECTIONS = 256
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_BATCH = 1_024
MAX_OUTBOX = 8_192

_PARSE_ERROR = -32700
_INTERNAL_ERROR = -32603
_CLOSE_TIMEOUT_S = 0.5
_TRY_AGAIN_LATER = 1013


class Connection:
    """One client: its outbox and its subscriptions.

    Args:
        socket: the accepted websocket.
    """

    def __init__(self, socket: ServerConnection) -> None:
        self.subscriptions: dict[str, Callable[[], None]] = {}
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
        self._held = []
        reply = _reply(rpc, self, text)
        held, self._held = self._held, None
        if reply is not None:
            self._put(reply)
        for message in held:
            self._put(message)

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


async def start_server(rpc: Rpc, host: str, port: int) -> Server:
    """Listen; ``port`` 0 takes a free one."""
    open_connections: set[Connection] = set()

    async def handle(socket: ServerConnection) -> None:
        connection = Connection(socket)
        open_connections.add(connection)
        writer = asyncio.create_task(connection.write())
        try:
            with suppress(ConnectionClosed):
                async for text in socket:
                    connection.answer(rpc, text)
        finally:
            open_connections.discard(connection)
            connection.end()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def limit(socket: ServerConnection, _request: Request) -> Response | None:
        if len(open_connections) < MAX_CONNECTIONS:
            return None
        return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")

    return await serve(
        handle,
        host,
        port,
        max_size=MAX_BODY_BYTES,
        process_request=limit,
        compression=None,
        close_timeout=_CLOSE_TIMEOUT_S,
    )


def _reply(rpc: Rpc, connection: Connection, text: str | bytes) -> Any:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {"jsonrpc": "2.0", "error": _error(_PARSE_ERROR, "Parse error"), "id": None}
    if not isinstance(message, list):
        return _guarded(rpc, connection, message)
    if not 0 < len(message) <= MAX_BATCH:
        error = _error(INVALID_REQUEST, f"a batch holds 1 to {MAX_BATCH} requests")
        return {"jsonrpc": "2.0", "error": error, "id": None}
    replies = [_guarded(rpc, connection, request) for request in message]
    return [reply for reply in replies if reply is not None] or None


def _guarded(rpc: Rpc, connection: Connection, request: Any) -> Any:
    try:
        return rpc.handle(connection, request)
    except Exception:  # noqa: BLE001 - the edge: a defect is logged and answered, never a hang
        logger.exception("a request could not be answered")
        identity = request.get("id") if isinstance(request, dict) else None
        error = _error(_INTERNAL_ERROR, "Internal error of devnet, see its log")
        return {"jsonrpc": "2.0", "error": error, "id": identity}


def _error(code: int, message: str) -> dict[str, Any]:
    return RpcError(code, message).body()
