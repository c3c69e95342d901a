"""A call that becomes a websocket: the chute's own server answers its handshake, then bytes go.

Path: executor (CALL with ``upgrade``) -> here -> passthrough.py (127.0.0.1, the port of a
passthrough cord), and back. Runs on the session's loop: no code of the user's is on the way.
Invariants: only the port and path that a passthrough cord declares are dialled, on loopback; no
byte of the caller's goes there before its 101; the call gives its slot back before its END leaves,
and exactly once.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

import anyio

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ProtocolError, Unavailable
from chutes_core.runner.asgi import response_head
from chutes_core.runner.job_socket import connect
from chutes_core.runner.link import Link
from chutes_core.runner.passthrough import LOOPBACK, Answer, Nonsense, Passthrough, ServerEnd, ask
from chutes_core.wire.bridge import carry
from chutes_core.wire.call import SWITCHING, CallEnd, CallHead
from chutes_core.wire.frames import BODY_CHUNK_BYTES, FrameKind
from chutes_core.wire.sealed_end import SealedEnd

DIAL_S = 10.0
HANDSHAKE_S = 60.0
IDLE_S = 1800.0  # the validator's limit is shorter; this one is for when it forgets


class Websocket:
    """One call.

    Args:
        link: the validator's connection.
        head: of the call.
        way: where it leads; None where no passthrough cord is served at its path.
        let_go: called once, when the chute's server is done with the call.
        clock: says how long that took.
    """

    def __init__(
        self,
        link: Link,
        head: CallHead,
        way: Passthrough | None,
        let_go: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._begun_us = clock.monotonic_us()
        self._link = link
        self._head = head
        self._way = way
        self._let_go: Callable[[], None] | None = let_go
        self._left = asyncio.Event()
        self._server: ServerEnd | None = None

    async def run(self) -> None:
        """Carry the call to its end; the connection is good for no other one.

        Raises:
            Unavailable: the validator is gone.
            ProtocolError: it broke the protocol.
        """
        try:
            if self._way is None:
                await self._say(404, "cord_not_found", "no passthrough cord is served here", "")
                return
            await self._to(self._way)
        finally:
            self.let_go()

    def leave(self) -> None:
        """End it: the server sees its connection close, and the caller gets an END."""
        self._left.set()
        if self._server is not None:
            self._server.close()

    def let_go(self) -> None:
        """Give the call's slot back."""
        if self._let_go is not None:
            self._let_go()
            self._let_go = None

    def _ending(self) -> tuple[FrameKind, bytes]:
        """Return the frame that ends the answer; the slot is free before it leaves."""
        self.let_go()
        busy_us = max(0, self._clock.monotonic_us() - self._begun_us)
        return FrameKind.END, CallEnd(busy_us=busy_us).model_dump_json().encode()

    async def _to(self, way: Passthrough) -> None:
        try:
            with anyio.fail_after(DIAL_S):
                sock = await connect(LOOPBACK, way.port)
        except OSError:  # TimeoutError is one
            await self._unreachable(way)
            return
        server = self._server = ServerEnd(sock)
        try:
            answer = await self._handshake(way, server)
            if answer is not None:
                await self._pass_on(answer, server)
        finally:
            server.abort()

    async def _handshake(self, way: Passthrough, server: ServerEnd) -> Answer | None:
        """Return the server's answer; None where there is none, and all is said."""
        asking = asyncio.ensure_future(ask(self._head, way, server))
        speaking = asyncio.ensure_future(self._link.peek())
        leaving = asyncio.ensure_future(self._left.wait())
        tasks: tuple[asyncio.Future[Any], ...] = (asking, speaking, leaving)
        try:
            await asyncio.wait(tasks, timeout=HANDSHAKE_S, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                await self._link.send_error(Unavailable("draining", "this instance is ending"))
            elif asking.done():
                return asking.result()
            elif not speaking.done():
                await self._unreachable(way)
            elif speaking.result() is not None:
                raise ProtocolError("unexpected_frame", "a frame before the websocket has begun")
        except Nonsense as error:
            await self._link.send_error(ProtocolError("bad_response", str(error)))
        finally:
            await _end(tasks)
        return None

    async def _pass_on(self, answer: Answer, server: ServerEnd) -> None:
        head = response_head(answer.status, answer.headers)
        start = (FrameKind.RESPONSE, head.model_dump_json().encode())
        rest = [
            (FrameKind.BODY, answer.rest[at : at + BODY_CHUNK_BYTES])
            for at in range(0, len(answer.rest), BODY_CHUNK_BYTES)
        ]
        if answer.status != SWITCHING:
            server.abort()
            await self._link.send(start, *rest, self._ending())
            return
        await self._link.send(start, *rest)
        if self._left.is_set():
            server.close()
        await carry(_CallEnd(self._link, self._ending), server, idle_s=IDLE_S)

    async def _unreachable(self, way: Passthrough) -> None:
        hint = f"does it listen on port {way.port} after start-up?"
        text = "the chute's own server did not answer"
        await self._say(502, "passthrough_unreachable", text, hint)

    async def _say(self, status: int, code: str, text: str, hint: str) -> None:
        """Answer in the chute's name, in the form of sdk/serving."""
        body = json.dumps({"detail": text, "code": code, "hint": hint}).encode()
        length = (b"content-length", str(len(body)).encode())
        head = response_head(status, ((b"content-type", b"application/json"), length))
        start = (FrameKind.RESPONSE, head.model_dump_json().encode())
        await self._link.send(start, (FrameKind.BODY, body), self._ending())


class _CallEnd(SealedEnd):
    """The caller; told of the end by ``ending``, which frees the slot."""

    def __init__(self, link: Link, ending: Callable[[], tuple[FrameKind, bytes]]) -> None:
        super().__init__(link, link.next_frame)
        self._sending = link
        self._ending = ending

    async def send_end(self) -> None:
        """End the call."""
        await self._sending.send(self._ending())


async def _end(tasks: "Iterable[asyncio.Future[Any]]") -> None:
    """Cancel tasks and wait until they have ended, whatever they come to."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
