"""The first bytes of a connection: a websocket's handshake, or one plain HTTP POST.

Real nodes answer JSON-RPC on one port in both ways, so the devnet does as well. Invariant: a POST
is read within the server's opening time-out and bounds, answered once, and its connection closed.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar

from websockets.asyncio.server import ServerConnection

MAX_HEAD_BYTES = 16 * 1024

_HEAD_END = b"\r\n\r\n"


class Front(ServerConnection):
    """A connection that is not decided yet.

    Subclasses set `max_body_bytes` and answer in `post`.
    """

    max_body_bytes: ClassVar[int]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._decided = asyncio.Event()
        self._changed = asyncio.Event()
        self._received = bytearray()
        self._is_post = False

    def post(self, path: str, body: bytes) -> bytes | None:
        """Return the answer to one POST; None breaks the connection."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        if not self._decided.is_set():
            self._is_post = data[:1] == b"P"
            self._decided.set()
        if not self._is_post:
            super().data_received(data)
            return
        self._received += data
        if len(self._received) > self.max_body_bytes + MAX_HEAD_BYTES:
            self.transport.abort()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits for bytes."""
        self._decided.set()
        self._changed.set()
        super().connection_lost(exc)

    async def handshake(self, *args: Any, **options: Any) -> None:
        """Answer the POST, or go on as a websocket."""
        await self._decided.wait()
        if not self._is_post:
            await super().handshake(*args, **options)
            return
        answer = await self._answer()
        if answer is None:
            self.transport.abort()
            return
        self.transport.write(answer)
        self.transport.close()
        await asyncio.wait([self.connection_lost_waiter])

    async def _answer(self) -> bytes | None:
        head, found, _ = await self._until(lambda: _HEAD_END in self._received)
        if not found or len(head) > MAX_HEAD_BYTES:
            return _response(HTTPStatus.BAD_REQUEST)
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(_header(line) for line in lines[1:])
        words, length = lines[0].split(" "), headers.get("content-length", "")
        if len(words) != 3 or not length.isdecimal():
            return _response(HTTPStatus.LENGTH_REQUIRED)
        if int(length) > self.max_body_bytes:
            return _response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        whole = len(head) + len(_HEAD_END) + int(length)
        await self._until(lambda: len(self._received) >= whole)
        body = bytes(self._received[len(head) + len(_HEAD_END) : whole])
        if len(body) < int(length):
            return None  # the client is gone
        reply = self.post(words[1], body)
        return None if reply is None else _response(HTTPStatus.OK, reply)

    async def _until(self, ready: Callable[[], bool]) -> tuple[bytes, bytes, bytes]:
        while not ready() and not self.connection_lost_waiter.done():
            self._changed.clear()
            await self._changed.wait()
        return bytes(self._received).partition(_HEAD_END)


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def _response(status: HTTPStatus, body: bytes = b"") -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
