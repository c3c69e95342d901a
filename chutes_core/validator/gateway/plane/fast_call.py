"""One ordinary call, from its last byte in to its last byte out, without a task or a future.

Path: fast -> here -> link -> relay, and back -> metering; what is no whole answer ends in
fast_ends. Invariants: nothing is tried again after a byte of the answer; the record is in the
journal before the last byte leaves; the caller gets the reference's bytes, of a chunked body at
least those within the chunks (pieces that came together leave as one).
"""

from math import inf
from typing import Final

from chutes_core.base.errors import ProtocolError, TimedOut
from chutes_core.validator.domain.invocations import Outcome
from chutes_core.validator.gateway.exchange import paid_time_over
from chutes_core.validator.gateway.metering import Ended
from chutes_core.validator.gateway.plane.answers import Answer, BadAnswer
from chutes_core.validator.gateway.plane.fast_ends import FastEnds
from chutes_core.validator.gateway.plane.heads import (
    BODILESS,
    CHUNKED,
    CLOSE,
    LAST_CHUNK,
    chunk,
    has_body,
)
from chutes_core.validator.gateway.told import told_lines
from chutes_core.wire.call import HEADER_INVOCATION
from chutes_core.wire.frames import FrameKind

SHORT_PAID_S: Final = 10.0  # a call that is paid for so briefly is ended to the millisecond
_RESPONSE: Final = FrameKind.RESPONSE
_ERROR: Final = FrameKind.ERROR
_BODY: Final = FrameKind.BODY
_END: Final = FrameKind.END
_ORDINARY: Final = (int(_RESPONSE), int(_BODY), int(_END))
_LESS: Final = "the instance sent less than its content-length"
_MORE: Final = "the instance sent more than its content-length"
_HEAD: Final = b"%%b%%b%%b%b: %%b\r\n%%b%%b\r\n" % HEADER_INVOCATION.encode()


class FastCall(FastEnds):
    """One call on one connection to its instance; ends once, by `_end`."""

    __slots__ = ()

    def begin(self, paid_s: float) -> None:
        """Count the call and send it; it is paid for so long."""
        parts, call, link, connection = self._parts, self._call, self._link, self._connection
        route, body = self._route, call.body
        clock = parts.clock
        parts.front.enter()
        parts.demand.begin(call.admitted.chute.chute_id)
        parts.bodies.take(len(body))
        parts.router.enter(route)
        call.attempts = 1
        call.launch_id = route.view.launch_id
        call.delivered = True
        call.started_at_us = clock.now_us()
        call.dispatched_us = call.arrived_us = clock.monotonic_us()
        connection.taken_by(self)
        link.sink = self
        now = connection.plane.now()
        self._paid_until = now + paid_s
        if paid_s < SHORT_PAID_S:
            loop = connection.plane.loop
            self._timer = loop.call_later(paid_s, self._paid_time_over)
        link.write_call(call.head, body)
        if not self._over:
            connection.deadline = min(now + parts.limits.first_byte_timeout_s, self._paid_until)

    # The instance's side.

    def on_three(
        self, one: int, payload: bytes, two: int, more: bytes, three: int, last: bytes
    ) -> bool:
        """Take an ordinary answer at once: RESPONSE, a BODY that is all it promises, END."""
        if self._head is not None or self._finishing or (one, two, three) != _ORDINARY:
            return False
        head = self._path.answers.known(payload)
        if head is None or head.promised != len(more) or not more:
            return False
        if head.status in BODILESS or self._request.shape.method == "HEAD":
            return False
        call = self._call
        usage_us = call.answered(head.status, self._parts.clock)
        self._route.succeeded(usage_us)
        self._head = head
        self._out = [self._head_bytes(head, False)]
        if call.tail is not None:
            call.tail.add(more)
        self._held = more
        self._finished(head.status, len(more), usage_us)
        return True

    def on_frame(self, kind: FrameKind, payload: bytes) -> None:
        """Take one message of the answer."""
        if self._finishing:
            self._link.abort()  # it talks on after its END: good for no other call
        elif self._head is None:
            self._first(kind, payload)
        elif kind is _BODY:
            self._body(payload)
        elif kind is _END:
            self._finish()
        elif kind is _ERROR:
            self._cut("chute_error")
        else:
            self._broken(ProtocolError("unexpected_frame", f"{kind.name} in a response"))

    def on_pieces(self, pieces: list[bytes]) -> bool:
        """Take pieces of a chunked answer at once."""
        if not self._chunked or self._finishing or self._call.tail is not None:
            return False
        self._pieces += [piece for piece in pieces if piece]
        self._bytes_out += sum(map(len, pieces))
        return True

    def on_batch(self) -> None:
        """Send what came together in one write, of a chunked body as one chunk."""
        if self._finishing or self._over:
            return
        self._gather()
        if self._out:
            self._write()
            self._by(self._parts.limits.idle_timeout_s)

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
        if self._head is None and now >= self._paid_until:
            self._fail(paid_time_over())
        elif self._head is None:
            self._route.failed(self._parts.clock.monotonic_us())
            self._fail(TimedOut("first_byte_timeout", "the instance gave no answer in time"))
        elif not self._connection.writable or now >= self._paid_until:
            self._cut("client_gone")
        else:
            seconds = limits.idle_timeout_s
            error = TimedOut("idle_timeout", f"the instance sent nothing for {seconds} s")
            self._broken(error)

    # The answer.

    def _first(self, kind: FrameKind, payload: bytes) -> None:
        """Take the message in whose place a RESPONSE should stand."""
        if kind is _ERROR:
            self._refused(payload)
            return
        try:
            if kind is not _RESPONSE:
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
        self._bodiless = not has_body(self._request.shape.method, head.status)
        self._chunked = head.promised is None and not self._bodiless
        self._out = [self._head_bytes(head, self._chunked)]

    def _head_bytes(self, head: Answer, chunked: bool) -> bytes:
        """Return the whole head of the answer; after the last one the connection closes."""
        request, call, plane = self._request, self._call, self._connection.plane
        more = CHUNKED if chunked else b""
        if not request.keep_alive or plane.stopping:
            request.keep_alive = False
            more = CLOSE + more
        return _HEAD % (
            head.before,
            plane.date(),
            head.lines,
            call.invocation_id.encode(),
            told_lines(call),
            more,
        )

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
            self._pieces.append(data)
            return
        assert self._head is not None
        promised = self._head.promised or 0
        whole = self._bytes_out + len(self._held) + len(data)
        if whole == promised:
            self._held = data
        elif whole > promised:
            self._broken(ProtocolError("bad_response", _MORE))
        else:
            self._bytes_out += len(data)
            self._out.append(data)

    def _gather(self) -> None:
        """Make one chunk of the pieces of a chunked body that have come."""
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._out.append(chunk(pieces[0] if len(pieces) == 1 else b"".join(pieces)))

    def _finish(self) -> None:
        """The answer is whole: record it, then send its end."""
        assert self._head is not None
        if self._chunked or self._bodiless:
            whole = self._bytes_out
        else:
            whole = self._bytes_out + len(self._held)
            if whole != (self._head.promised or 0):
                self._broken(ProtocolError("bad_response", _LESS))
                return
        self._finished(self._head.status, whole, self._call.usage_us(self._parts.clock))

    def _finished(self, status: int, whole: int, usage_us: int) -> None:
        """Have the call recorded, which ends its answer."""
        outcome: Outcome = "chute_error" if status >= 500 else "ok"
        self.ending = Ended(self._call, outcome, whole, usage_us)
        self._finishing = True
        self._connection.deadline = inf
        self._path.ended(self, self._connection.plane.loop)

    def complete(self) -> None:
        """The record is written: send the end of the answer."""
        self._end(clean=True)
        connection = self._connection
        if connection.gone:
            return
        out = self._out
        if self._chunked:
            self._gather()
            out.append(LAST_CHUNK)
        else:
            out.append(self._held)
        self.begun = True
        connection.transport.write(b"".join(out))
        connection.answered(keep=True)

    def _leave_unfinished(self) -> None:
        self._gather()
        super()._leave_unfinished()

    # Time.

    def _paid_time_over(self) -> None:
        if not (self._over or self._finishing):
            self.on_deadline(self._paid_until)

    def _by(self, seconds: float) -> None:
        if not self._over:
            now = self._connection.plane.now()
            self._connection.deadline = min(now + seconds, self._paid_until)
