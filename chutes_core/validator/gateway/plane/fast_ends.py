"""The ends of a fast call that are no whole answer: refused, broken off, cut, left, unrecorded.

Path: fast_call -> here -> metering, and where another instance may answer -> the reference
(`Front.resume`). Invariants: those of forward.py; slot, connection, hold and room are given back in
every case, once, by `_end` alone, and the caller gets the reference's bytes.
"""

import asyncio
from typing import TYPE_CHECKING, Protocol

from loguru import logger
from pydantic import ValidationError

from chutes_core.base.errors import ChutesError, ProtocolError
from chutes_core.validator.domain.invocations import Outcome
from chutes_core.validator.domain.statuses import status_of
from chutes_core.validator.gateway.asgi import Receive, Scope, Send
from chutes_core.validator.gateway.call import Call
from chutes_core.validator.gateway.forward import CALLER_LEFT
from chutes_core.validator.gateway.metering import Ended
from chutes_core.validator.gateway.plane.answers import Answer, Answers
from chutes_core.validator.gateway.plane.link import Link
from chutes_core.validator.gateway.plane.parts import Parts
from chutes_core.validator.gateway.plane.request import Request
from chutes_core.validator.gateway.pool import Borrowed
from chutes_core.validator.gateway.reply import Reply
from chutes_core.validator.gateway.routing import Route
from chutes_core.wire.launch import FrameError

if TYPE_CHECKING:
    from chutes_core.validator.gateway.plane.fast_call import FastCall
    from chutes_core.validator.gateway.plane.http import Connection


class Path(Protocol):
    """The part of `FastPath` that a call needs."""

    parts: Parts
    answers: Answers

    def ended(self, call: "FastCall", loop: asyncio.AbstractEventLoop) -> None:
        """Have a call recorded with all others that end in this turn of the loop."""
        ...


class FastEnds:
    """A running call's state, and how it ends when its answer is not whole.

    Attributes:
        begun: whether a byte of the answer has been sent.
        ending: what is recorded once the answer is whole.
    """

    __slots__ = (
        "_bodiless",
        "_borrowed",
        "_bytes_out",
        "_call",
        "_chunked",
        "_connection",
        "_finishing",
        "_head",
        "_held",
        "_link",
        "_out",
        "_over",
        "_paid_until",
        "_parts",
        "_path",
        "_pieces",
        "_request",
        "_route",
        "_timer",
        "begun",
        "ending",
    )
    answers_after_eof = False

    def __init__(
        self,
        path: Path,
        connection: "Connection",
        request: Request,
        call: Call,
        route: Route,
        borrowed: Borrowed,
    ) -> None:
        self._path = path
        self._parts = path.parts
        self._connection = connection
        self._request = request
        self._call = call
        self._route = route
        self._borrowed = borrowed
        self._link: Link = borrowed.connection  # type: ignore[assignment]
        self._out: list[bytes] = []
        self._head: Answer | None = None
        self._chunked = False
        self._bodiless = False
        self._held = b""  # what completes a body of known length
        self._pieces: list[bytes] = []  # of a chunked body, not yet in `_out`
        self._bytes_out = 0
        self._paid_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        self._finishing = False  # whole, and soon recorded
        self.begun = False
        self.ending: Ended = None  # type: ignore[assignment]

    def on_lost(self, error: ChutesError) -> None:
        """The connection to the instance is over."""
        if self._over or self._finishing:
            return
        if self._head is None:
            self._again()
        else:
            self._broken(error)

    def on_caller_left(self) -> None:
        """Stop the call at the instance; it is charged for what it did."""
        if self._over or self._finishing:
            return
        self._call.caller_left = True
        self._call.status = self._call.status or CALLER_LEFT
        self._record("client_gone", self._bytes_out)
        self._end(clean=False)

    def unrecorded(self, error: ChutesError) -> None:
        """The record could not be written, so the answer must not be whole."""
        if self._connection.gone:
            self._end(clean=False)
        else:
            self._unrecorded(error)

    def drop(self) -> None:
        """End what failed in an unforeseen way: everything back, and the connection cut."""
        try:
            self._end(clean=False)
        finally:
            if not self._connection.gone:
                self._connection.cut()

    def _refused(self, payload: bytes) -> None:
        """An ERROR came in place of an answer: another instance may give one."""
        call, route = self._call, self._route
        try:
            said = FrameError.model_validate_json(payload)
        except ValidationError:
            self._again()
            return
        try:
            call.last_error = self._parts.forwarder.refused(call, route, said).error
        except ProtocolError as error:
            self._fail(error)
            return
        call.tried = (*call.tried, route.view.launch_id)
        self._hand_over(None)

    def _again(self) -> None:
        """The pooled connection was dead: the reference tries with others."""
        call = self._call
        call.taken_back(fault=False)
        call.attempts -= 1
        self._hand_over(None)

    def _broken(self, error: ChutesError) -> None:
        """The instance broke off: its failure, never charged."""
        self._route.failed(self._parts.clock.monotonic_us())
        self._fail(error)

    def _fail(self, error: ChutesError) -> None:
        """End the call by an error, which the caller gets to hear if nothing was sent."""
        try:
            self._parts.forwarder.failed(self._call, error, bytes_out=self._bytes_out)
        except ChutesError as worse:
            error = worse
        self._unrecorded(error)

    def _unrecorded(self, error: ChutesError) -> None:
        if self._head is None:
            self._hand_over(error)
            return
        if status_of(error) >= 500:
            self._warn(error)
        self._leave_unfinished()

    def _cut(self, outcome: Outcome) -> None:
        """End an answer that has begun so that it looks cut off."""
        self._record(outcome, self._bytes_out)
        self._leave_unfinished()

    def _leave_unfinished(self) -> None:
        """Send what has come, and close without the answer's end."""
        if self._out:
            self._write()
        self._end(clean=False)
        self._connection.cut()

    def _record(self, outcome: Outcome, bytes_out: int) -> None:
        try:
            self._parts.metering.record(self._call, outcome, bytes_out=bytes_out)
        except ChutesError as error:
            self._warn(error)

    def _warn(self, error: ChutesError) -> None:
        bound = logger.bind(invocation_id=self._call.invocation_id, code=error.code)
        bound.warning("Call failed")

    def _hand_over(self, error: ChutesError | None) -> None:
        """Let the reference go on with the call, or say why it ended."""
        call, front, request = self._call, self._parts.front, self._request

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            reply = Reply(send, call.invocation_id, request.shape.method)
            reply.standing = call.standing
            if error is None:
                await front.resume(call, reply, receive)
            else:
                await front.say(error, reply, call.arrived_us)

        if error is None:
            front.enter()
        self._end(clean=False, goes_on=error is None)
        self._connection.plane.go_on(self._connection, request, app)

    def _write(self) -> None:
        out, self._out = self._out, []
        self.begun = True
        self._connection.transport.write(b"".join(out))

    def _end(self, *, clean: bool, goes_on: bool = False) -> None:
        """Give everything back, once; a call that ``goes_on`` keeps its hold."""
        if self._over:
            return
        self._over = True
        parts, call, link = self._parts, self._call, self._link
        link.sink = None
        if clean:
            link.go_on()
            parts.pool.give_back(self._borrowed)
        else:
            link.abort()
        chute_id = call.admitted.chute.chute_id
        parts.router.leave(self._route)
        parts.queue.wake(chute_id, 1)
        parts.demand.end(chute_id)
        parts.bodies.held_bytes -= len(call.body)
        if call.hold.is_open and not goes_on:
            call.hold.release()
        parts.front.leave()
        if self._timer is not None:
            self._timer.cancel()
