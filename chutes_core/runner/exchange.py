"""One call on its two loops: the session's (frames) and the chute's (ASGI).

Path: executor feeds the request in and waits for `run` -> the chute receives and sends -> frames.
Invariant: a chunk that the chute sends is a BODY frame before its `send` returns (nothing is held
back); at most WINDOW request frames wait unread; after `leave` the chute sees ``http.disconnect``
and is cancelled once LEAVE_GRACE_S have passed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from chutes_core.base.errors import ChutesError, ProtocolError, Unavailable
from chutes_core.runner.asgi import AsgiApp, AsgiMessage, Scope, response_head
from chutes_core.runner.chute_loop import ChuteLoop
from chutes_core.runner.link import Link
from chutes_core.wire.call import ResponseHead
from chutes_core.wire.frames import BODY_CHUNK_BYTES, FrameKind

WINDOW = 4
LEAVE_GRACE_S = 1.0
MAX_REASON = 500
_LOG = logging.getLogger("chutes_core.runner")


class Exchange:
    """The session's half of a call; `ChuteSide` is the other.

    Args:
        link: the call's connection.
        chute_loop: where the chute runs.
        finish: sends END; called when the response is complete.
    """

    def __init__(
        self, link: Link, chute_loop: ChuteLoop, finish: Callable[[], Awaitable[None]]
    ) -> None:
        self._link = link
        self._chute_loop = chute_loop
        self._finish = finish
        self._loop = asyncio.get_running_loop()
        self._window = asyncio.Semaphore(WINDOW)
        self._side = ChuteSide(self)
        self.complete = asyncio.Event()
        self.over = False
        self.uploaded = False

    def start(self, app: AsgiApp, scope: Scope) -> "asyncio.Future[None]":
        """Run the chute on its loop; the future ends with it."""
        return self._chute_loop.submit(self._side.run(app, scope))

    async def feed(self, body: bytes, *, more: bool) -> None:
        """Hand over a piece of the request, waiting while the chute is slower."""
        if body and not self.over:
            await self._window.acquire()
        if not self.over:
            message = {"type": "http.request", "body": body, "more_body": more}
            self._chute_loop.soon(self._side.deliver, message)

    def leave(self) -> None:
        """Tell the chute that the caller is gone; soon after it is cancelled."""
        self._chute_loop.soon(self._side.leave)

    def end(self) -> None:
        """Mark the response as over: what still comes of the request is dropped."""
        self.over = True
        self._window.release()  # whoever waits to feed need not wait any more

    def taken(self) -> None:
        """Take note (from the chute's loop) that it has read one piece of the request."""
        self._loop.call_soon_threadsafe(self._window.release)

    async def respond(self, start: ResponseHead | None, body: bytes, *, last: bool) -> None:
        """Send (from the chute's loop) a piece of the response, and END after the last one."""
        writing = asyncio.run_coroutine_threadsafe(self._write(start, body, last=last), self._loop)
        await asyncio.shield(asyncio.wrap_future(writing))  # a frame is written whole

    async def _write(self, start: ResponseHead | None, body: bytes, *, last: bool) -> None:
        if start is not None:
            await self._link.send_message(FrameKind.RESPONSE, start)
        for at in range(0, len(body), BODY_CHUNK_BYTES):
            await self._link.send(FrameKind.BODY, body[at : at + BODY_CHUNK_BYTES])
        if last:
            self.end()
            await self._finish()
            self.complete.set()


class ChuteSide:
    """The chute's half of a call: an ASGI server for one request, on the chute's loop."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._inbox: deque[AsgiMessage] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._left = False
        self._method = ""
        self._start: ResponseHead | None = None  # held until the first body
        self._began = False
        self._done = False
        self._promised: int | None = None
        self._sent = 0

    async def run(self, app: AsgiApp, scope: Scope) -> None:
        """Run the application to its end.

        Raises:
            ChutesError: ``cord_failed`` or ``bad_response``, where no complete response tells it.
        """
        self._task = asyncio.current_task()
        self._method = scope["method"]
        failure: ChutesError | None = None
        if self._left:
            return
        try:
            await app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            failure = Unavailable("cord_failed", "the cord was cancelled")
        except ChutesError as error:
            failure = error
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 # user code
            failure = Unavailable("cord_failed", f"{type(error).__name__}: {error}"[:MAX_REASON])
            if not self._left:
                _LOG.exception("a cord failed")
        if self._done or self._left:
            return
        raise failure or ProtocolError("bad_response", "the cord ended before its response did")

    def deliver(self, message: AsgiMessage) -> None:
        """Take a piece of the request."""
        self._inbox.append(message)
        self._arrived.set()

    def leave(self) -> None:
        """The caller is gone."""
        if self._left or self._done:
            return
        self._left = True
        self._arrived.set()
        if self._task is not None:
            asyncio.get_running_loop().call_later(LEAVE_GRACE_S, self._task.cancel)

    async def _receive(self) -> AsgiMessage:
        while not self._inbox and not self._left and not self._done:
            self._arrived.clear()
            await self._arrived.wait()
        if self._left or self._done:
            return {"type": "http.disconnect"}
        message = self._inbox.popleft()
        if message["body"]:
            self._exchange.taken()
        return message

    async def _send(self, message: AsgiMessage) -> None:
        if self._left:
            raise ConnectionResetError("the caller has left")
        kind = message["type"]
        if kind == "http.response.start" and not self._began:
            self._begin(message)
        elif kind == "http.response.body" and self._began and not self._done:
            await self._body(message.get("body", b""), last=not message.get("more_body", False))
        else:
            raise ProtocolError("bad_response", f"the cord sent {kind} out of order")

    def _begin(self, message: AsgiMessage) -> None:
        self._began = True
        self._start = response_head(message["status"], message.get("headers", ()))
        length = dict(self._start.headers).get("content-length", "")
        if length.isdecimal() and self._method != "HEAD" and self._start.status not in (204, 304):
            self._promised = int(length)

    async def _body(self, body: bytes, *, last: bool) -> None:
        body = b"" if self._method == "HEAD" else bytes(body)
        self._sent += len(body)
        if self._promised is not None and (
            self._sent > self._promised or (last and self._sent < self._promised)
        ):
            raise ProtocolError("bad_response", "the body is not as long as its content-length")
        start, self._start = self._start, None
        self._done = last
        await self._exchange.respond(start, body, last=last)
        if last:
            self._arrived.set()
