"""One call on its two loops: the session's (frames) and the chute's (ASGI).

Path: executor feeds the request in -> `ChuteSide` is an ASGI server for this one request ->
`Piece`s come back -> the executor makes frames of them.
Invariant: a chunk that the chute sends is on its way at once (none waits for another: only those
that are there already leave together); at most WINDOW chunks wait unread in either direction; after
`leave` the chute sees ``http.disconnect`` and is cancelled once LEAVE_GRACE_S have passed;
``let_go`` is called exactly once, when the chute no longer works on the call or its response is
complete.

A change of threads costs some 50 us (two cores, November 2026), so a small call takes two: the
whole request in, the whole response out.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from chutes_core.base.errors import ChutesError, ProtocolError, Unavailable
from chutes_core.runner.asgi import AsgiApp, AsgiMessage, Scope, response_head
from chutes_core.runner.chute_loop import ChuteLoop
from chutes_core.wire.call import ResponseHead

WINDOW = 8
LEAVE_GRACE_S = 1.0
MAX_REASON = 500
_LOG = logging.getLogger("chutes_core.runner")


@dataclass(frozen=True)
class Piece:
    """A part of the response, or why there will be no more."""

    start: ResponseHead | None = None
    body: bytes = b""
    last: bool = False
    failure: ChutesError | None = None
    left: bool = False

    @property
    def ends(self) -> bool:
        """Tell whether nothing of the response counts behind this piece."""
        return self.last or self.left or self.failure is not None


class Exchange:
    """The session's half of a call.

    Args:
        chute_loop: where the chute runs.
        let_go: called on the session's loop when the call no longer occupies the chute.
    """

    def __init__(self, chute_loop: ChuteLoop, let_go: Callable[[], None]) -> None:
        self._chute_loop = chute_loop
        self._let_go: Callable[[], None] | None = let_go
        self._loop = asyncio.get_running_loop()
        self._side = ChuteSide(self)
        self._began = False
        self._window = asyncio.Semaphore(WINDOW)
        self._outbox: asyncio.Queue[Piece] = asyncio.Queue()
        self._settled = False  # nothing more can come from the chute's side
        self.uploaded = False  # END of the request has been read
        self.over = False  # END or ERROR of the response has been, or is being, sent
        self.taken = 0  # pieces that have become frames; written here, read on the chute's loop

    async def feed(self, app: AsgiApp, scope: Scope, body: bytes, *, more: bool) -> None:
        """Hand over a piece of the request; the first one starts the application.

        Waits while the chute is slower; once the response is over the piece is dropped.
        """
        if not self._began:
            self._began = True
            self._chute_loop.soon(self._side.begin, app, scope, body, more)
            return
        if not self.over:
            await self._window.acquire()
        if not self.over:
            self._chute_loop.soon(self._side.deliver, body, more)

    async def next_pieces(self, max_bytes: int) -> list[Piece]:
        """Return the next piece of the response and those that are there behind it, to its end.

        It waits for one piece alone; once they hold ``max_bytes``, the others come the next time.
        """
        piece = await self._outbox.get()
        pieces, size = [piece], len(piece.body)
        while size < max_bytes and not piece.ends and not self._outbox.empty():
            piece = self._outbox.get_nowait()
            pieces.append(piece)
            size += len(piece.body)
        return pieces

    def took(self, count: int) -> None:
        """Note that pieces have become frames, so that the chute may send as many others."""
        self.taken += count
        if self._side.waiting:
            self._chute_loop.soon(self._side.wake)

    def finish(self) -> None:
        """Mark the response as over: what still comes of the request is dropped."""
        self.over = True
        self._window.release()  # whoever waits to feed need not wait any more
        self._let_it_go()

    def leave(self) -> None:
        """Tell the chute that the caller is gone; the place is free when the chute lets go."""
        self.over = True
        self._window.release()
        self._outbox.put_nowait(Piece(left=True))
        if self._settled or not self._began:
            self._let_it_go()
        self._chute_loop.soon(self._side.leave)

    def post(self, piece: Piece, *, settled: bool) -> None:
        """Take (from the chute's loop) a piece of the response."""
        self._loop.call_soon_threadsafe(self._arrived, piece, settled)

    def read_one(self) -> None:
        """Note (from the chute's loop) that a piece of the request has been read."""
        self._loop.call_soon_threadsafe(self._window.release)

    def _arrived(self, piece: Piece, settled: bool) -> None:
        self._outbox.put_nowait(piece)
        self._settled = self._settled or settled
        if self._settled and self.over:
            self._let_it_go()

    def _let_it_go(self) -> None:
        if self._let_go is not None:
            self._let_go()
            self._let_go = None


class ChuteSide:
    """The chute's half: an ASGI server for one request. Every method runs on the chute's loop."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._inbox: deque[AsgiMessage] = deque()
        self._fed = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._left = False
        self._method = ""
        self._start: ResponseHead | None = None  # held until the first body
        self._began = False
        self._done = False
        self._promised: int | None = None
        self._sent = 0
        self._posted = 0
        self.waiting = False

    def begin(self, app: AsgiApp, scope: Scope, body: bytes, more: bool) -> None:
        """Start the application with the first piece of its request."""
        self._inbox.append({"type": "http.request", "body": body, "more_body": more})
        self._method = scope["method"]
        self._task = asyncio.ensure_future(self._run(app, scope))

    def deliver(self, body: bytes, more: bool) -> None:
        """Take another piece of the request."""
        self._inbox.append({"type": "http.request", "body": body, "more_body": more})
        self._arrived.set()

    def leave(self) -> None:
        """The caller is gone."""
        if self._left or self._done or self._task is None:
            return
        self._left = True
        self._arrived.set()
        self._room.set()
        asyncio.get_running_loop().call_later(LEAVE_GRACE_S, self._task.cancel)

    def wake(self) -> None:
        """A piece of the response has left."""
        self._room.set()

    async def _run(self, app: AsgiApp, scope: Scope) -> None:
        failure: ChutesError = ProtocolError("bad_response", "the cord ended before its response")
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
        if not self._done:
            self._exchange.post(Piece(failure=failure), settled=True)

    async def _receive(self) -> AsgiMessage:
        while not self._inbox and not self._left and not self._done:
            self._arrived.clear()
            await self._arrived.wait()
        if self._left or self._done:
            return {"type": "http.disconnect"}
        self._fed += 1
        if self._fed > 1:  # the first piece has no place in the window
            self._exchange.read_one()
        return self._inbox.popleft()

    async def _send(self, message: AsgiMessage) -> None:
        if self._left:
            raise ConnectionResetError("the caller has left")
        kind = message["type"]
        if kind == "http.response.start" and not self._began:
            self._begin_response(message)
        elif kind == "http.response.body" and self._began and not self._done:
            await self._body(message.get("body", b""), last=not message.get("more_body", False))
        else:
            raise ProtocolError("bad_response", f"the cord sent {kind} out of order")

    def _begin_response(self, message: AsgiMessage) -> None:
        self._start = response_head(message["status"], message.get("headers", ()))
        self._began = True
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
        self._posted += 1
        self._exchange.post(Piece(start, body, last), settled=last)
        if last:
            self._arrived.set()
        else:
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        while self._posted - self._exchange.taken >= WINDOW and not self._left:
            self._room.clear()
            self.waiting = True  # set before the second look, so that no wake is missed
            if self._posted - self._exchange.taken >= WINDOW:
                await self._room.wait()
            self.waiting = False
