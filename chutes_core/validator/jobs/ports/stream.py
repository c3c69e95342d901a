"""A caller's upgraded connection as an end of a bridge, and the bridge to a port.

Path: api/routes/ports -> here -> reach's way. Invariant: after the 101 nothing but pieces of
wire/stream passes; a stream that did not come to both its ends is cut, never completed.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from chutes_core.base.errors import Unavailable
from chutes_core.validator.jobs.ports.reach import IDLE_S, Way
from chutes_core.wire.bridge import Ended, carry
from chutes_core.wire.stream import ALIVE, END, Unpacker, pack

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class CallerEnd:
    """The caller of an upgraded connection, over ASGI."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._sending = asyncio.Lock()
        self._unpacker = Unpacker()
        self._told = False
        self._cut = False

    async def receive(self) -> bytes | None:
        """Return the next piece; None once at the caller's end."""
        while True:
            if self._unpacker.ended and not self._told:
                self._told = True
                return None
            message = await self._receive()
            if message["type"] != "http.request":
                raise Unavailable("connection_lost", "the caller has left")
            data = self._unpacker.feed(message.get("body", b""))
            await self._answer_alive()
            if data:
                return data

    async def send(self, data: bytes) -> None:
        """Send a piece."""
        await self._put(pack(data))

    async def send_end(self) -> None:
        """End our direction."""
        await self._put(END)

    def abort(self) -> None:
        """Send no more; whoever serves cuts what is not complete."""
        self._cut = True

    async def _answer_alive(self) -> None:
        """Answer, unless bytes are on their way: a caller who takes none still may send."""
        if self._unpacker.asked and not self._sending.locked():
            self._unpacker.asked = 0
            await self._put(ALIVE)

    async def _put(self, data: bytes) -> None:
        async with self._sending:
            if self._cut:
                raise Unavailable("connection_lost", "the connection is being cut")
            await self._send({"type": "http.response.body", "body": data, "more_body": True})


async def serve(way: Way, receive: Receive, send: Send, *, idle_s: float = IDLE_S) -> Ended:
    """Join a caller whose request may become a stream with a port, to the end."""
    await send({"type": "http.response.start", "status": 101, "headers": []})
    caller = CallerEnd(receive, send)
    ended = await carry(caller, way.end, idle_s=idle_s, closed=way.over.wait())
    if ended is Ended.WHOLE:
        await way.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    return ended
