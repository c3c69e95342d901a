"""One ordinary call, from its last byte in to its last byte out, without a task or a future.

Path: fast -> fast_call -> link -> relay, and back -> metering. What goes wrong after dispatch is
handed to the reference by `Front.resume`. Invariants: those of forward.py (nothing is tried again
after a byte of the answer; the record is in the journal before the last byte leaves; slot,
connection, hold and room are given back in every case, by `_end` alone), and the caller gets the
reference's bytes.
"""

import asyncio
from math import inf
from typing import TYPE_CHECKING, Protocol

from loguru import logger
from pydantic import ValidationError

from chutes_core.base.errors import ChutesError, ProtocolError, TimedOut
from chutes_core.validator.domain.invocations import Outcome
from chutes_core.validator.domain.statuses import status_of
from chutes_core.validator.gateway.asgi import Receive, Scope, Send
from chutes_core.validator.gateway.call import Call
from chutes_core.validator.gateway.forward import CALLER_LEFT
from chutes_core.validator.gateway.metering import Ended
from chutes_core.validator.gateway.plane.answers import Answer, Answers, BadAnswer
from chutes_core.validator.gateway.plane.heads import CHUNKED, CLOSE, LAST_CHUNK, chunk, has_body
from chutes_core.validator.gateway.plane.link import Link
from chutes_core.validator.gateway.plane.parts import Parts
from chutes_core.validator.gateway.plane.request import Request
from chutes_core.validator.gateway.pool import Borrowed
from chutes_core.validator.gateway.reply import Reply
from chutes_core.validator.gateway.routing import Route
from chutes_core.validator.gateway.told import told_lines
from chutes_core.wire.call import HEADER_INVOCATION
from chutes_core.wire.frames import FrameKind
from chutes_core.wire.launch import FrameError

if TYPE_CHECKING:
    from chutes_core.validator.gateway.plane.http import Connection

SHORT_PAID_S = 10.0  # a call that is paid for so briefly is ended to the millisecond
_CALL, _BODY, _ENDING = FrameKind.CALL, FrameKind.BODY, (FrameKind.END, b"")
_INVOCATION = HEADER_INVOCATION.encode() + b": "


class Path(Protocol):
    """The part of `FastPath` that a call needs."""

    parts: Parts
    answers: Answers

    def ended(self, call: "FastCall", loop: asyncio.AbstractEventLoop) -> None:
        """Have a call recorded with all others that end in this turn of the loop."""
        ...


class FastCall:
    """One call on one connection to its instance; ends once, by `_end`."""

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
        self._held = b""
        self._bytes_out = 0
        self._paid_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        self._finishing = False  # whole, and soon recorded
        self.ending: Ended = None  # type: ignore[assignment]
        self.begun = False
        self.answers_after_eof = False

    def begin(self) -> None:
        """Count the call and send it."""
        parts, call, link = self._parts, self._call, self._link
        parts.front.enter()
        parts.demand.begin(call.chute_id)
        parts.bodies.take(len(call.body))
        parts.router.enter(self._route)
        launch_id = self._route.view.launch_id
        call.tried.add(launch_id)
        call.attempts = 1
        call.dispatch(launch_id, parts.clock)
        self._connection.taken_by(self)
        link.sink = self
        self._set_paid_time()
        if call.body:
            link.write((_CALL, call.head), (_BODY, call.body), _ENDING)
        else:
            link.write((_CALL, call.head), _ENDING)
        self._by(parts.limits.first_byte_timeout_s)

    # The instance's side.

    def on_frame(self, kind: FrameKind, payload: bytes) -> None:
        """Take one frame of the answer."""
        if self._finishing:
            self._link.abort()  # it talks on after its END: good for no other call
        elif self._head is None:
            self._first(kind, payload)
        elif kind is FrameKind.BODY:
            self._body(payload)
        elif kind is FrameKind.END:
            self._finish()
        elif kind is FrameKind.ERROR:
            self._cut("chute_error")
        else:
            self._broken(ProtocolError("unexpected_frame", f"{kind.name} in a response"))

    def on_batch(self) -> None:
        """Send what came together in one write."""
        if self._out and not self._finishing:
            self._write()
            self._by(self._parts.limits.idle_timeout_s)

    def on_lost(self, error: ChutesError) -> None:
        """The connection to the instance is over."""
        if self._over or self._finishing:
            return
        if self._head is None:
            self._again()
        else:
            self._broken(error)

    # The caller's side.

    def on_body(self) -> None:
        """Nothing more can come: the request was whole."""

    def on_writable(self, *, writable: bool) -> None:
        """Read from the instance only as fast as the caller reads."""
        if self._over or self._finishing:
            return
        if writable:
            self._link.go_on()
        else:
            self._link.hold()
        if self._head is not None:
            self._by(self._parts.limits.idle_timeout_s)

    def on_deadline(self, now: float) -> None:
        """Cut what takes too long: the caller's account, or the instance's failure."""
        limits = self._parts.limits
        if self._head is None:
            self._route.failed(self._parts.clock.monotonic_us())
            self._fail(TimedOut("first_byte_timeout", "the instance gave no answer in time"))
        elif not self._connection.writable or now >= self._paid_until:
            self._cut("client_gone")
        else:
            seconds = limits.idle_timeout_s
            error = TimedOut("idle_timeout", f"the instance sent nothing for {seconds} s")
            self._broken(error)

    def on_caller_left(self) -> None:
        """Stop the call at the instance; it is charged for what it did."""
        if self._over or self._finishing:
            return
        self._call.caller_left = True
        self._call.status = self._call.status or CALLER_LEFT
        self._record("client_gone", self._bytes_out)
        self._end(clean=False)

    # The answer.

    def _first(self, kind: FrameKind, payload: bytes) -> None:
        """Take the frame in whose place a RESPONSE should stand."""
        if kind is FrameKind.ERROR:
            self._refused(payload)
            return
        try:
            if kind is not FrameKind.RESPONSE:
                raise ProtocolError("unexpected_frame", f"got {kind.name} for a RESPONSE")
            head = self._path.answers.of(payload)
        except BadAnswer as bad:
            self._answered_by_instance(bad.status)
            self._broken(bad.error)
            return
        except ProtocolError:
            self._again()
            return
        self._answered_by_instance(head.status)
        self._head = head
        request = self._request
        self._bodiless = not has_body(request.shape.method, head.status)
        self._chunked = head.promised is None and not self._bodiless
        invocation = _INVOCATION + self._call.invocation_id.encode() + b"\r\n"
        told = told_lines(self._call)
        out = [head.before, self._connection.plane.date(), head.lines, invocation, told]
        if not request.keep_alive or self._connection.plane.stopping:
            request.keep_alive = False
            out.append(CLOSE)
        if self._chunked:
            out.append(CHUNKED)
        out.append(b"\r\n")
        self._out = out

    def _answered_by_instance(self, status: int) -> None:
        self._route.succeeded(self._call.answered(status, self._parts.clock))

    def _body(self, data: bytes) -> None:
        """Pass a piece of the body on, unless it would complete the answer."""
        if self._bodiless or not data:
            return
        if self._call.tail is not None:
            self._call.tail.add(data)
        if self._chunked:
            self._bytes_out += len(data)
            self._out.append(chunk(data))
            return
        assert self._head is not None
        promised = self._head.promised or 0
        whole = self._bytes_out + len(self._held) + len(data)
        if whole > promised:
            error = ProtocolError("bad_response", "the instance sent more than its content-length")
            self._broken(error)
        elif whole == promised:
            self._held = data
        else:
            self._bytes_out += len(data)
            self._out.append(data)

    def _finish(self) -> None:
        """The answer is whole: record it, then send its end."""
        assert self._head is not None
        whole = self._bytes_out + len(self._held)
        if not (self._chunked or self._bodiless) and whole != (self._head.promised or 0):
            error = ProtocolError("bad_response", "the instance sent less than its content-length")
            self._broken(error)
            return
        outcome: Outcome = "chute_error" if self._head.status >= 500 else "ok"
        self.ending = Ended(self._call, outcome, whole, self._call.usage_us(self._parts.clock))
        self._finishing = True
        self._connection.deadline = inf
        self._path.ended(self, self._connection.plane.loop)

    def complete(self) -> None:
        """The record is written: send the end of the answer."""
        self._end(clean=True)
        if self._connection.gone:
            return
        self._out.append(LAST_CHUNK if self._chunked else self._held)
        self._write()
        self._connection.answered(keep=True)

    def unrecorded(self, error: ChutesError) -> None:
        """The record could not be written, so the answer must not be whole."""
        if self._connection.gone:
            self._end(clean=False)
        else:
            self._unrecorded(error)

    def _write(self) -> None:
        out, self._out = self._out, []
        self.begun = True
        self._connection.transport.write(b"".join(out))

    # Other ends.

    def _refused(self, payload: bytes) -> None:
        """An ERROR came in place of an answer: another instance may give one."""
        try:
            said = FrameError.model_validate_json(payload)
        except ValidationError:
            self._again()
            return
        try:
            self._call.last_error = self._parts.forwarder.refused(
                self._call, self._route, said
            ).error
        except ProtocolError as error:
            self._fail(error)
            return
        self._hand_over(None)

    def _again(self) -> None:
        """The pooled connection was dead: the reference tries with others."""
        call = self._call
        call.taken_back(fault=False)
        call.attempts -= 1
        call.tried.discard(self._route.view.launch_id)
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
            bound = logger.bind(invocation_id=self._call.invocation_id, code=error.code)
            bound.warning("Call failed")
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
        parts.router.leave(self._route)
        parts.queue.wake(call.chute_id, 1)
        parts.demand.end(call.chute_id)
        parts.bodies.held_bytes -= len(call.body)
        if not goes_on:
            call.hold.release()
        parts.front.leave()
        if self._timer is not None:
            self._timer.cancel()

    # Time.

    def _set_paid_time(self) -> None:
        """Note until when the call is paid for; a very short time gets a timer of its own."""
        paid_s = self._call.paid_s(self._parts.limits.max_call_s)
        now = self._connection.plane.now()
        self._paid_until = now + paid_s
        if paid_s < SHORT_PAID_S:
            loop = self._connection.plane.loop
            self._timer = loop.call_later(paid_s, self._paid_time_over)

    def _paid_time_over(self) -> None:
        if not (self._over or self._finishing):
            self.on_deadline(self._paid_until)

    def _by(self, seconds: float) -> None:
        if not self._over:
            now = self._connection.plane.now()
            self._connection.deadline = min(now + seconds, self._paid_until)
