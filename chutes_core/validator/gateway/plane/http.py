"""One caller's connection: HTTP/1.1 in, requests out, one at a time.

Path: socket -> here -> fast (an ordinary call, whole at hand) or bridge (everything else).
Invariants: a connection is always in one state that has an end in time (`deadline`); bytes that
lead to no request are bounded; what is not read in exactly one way is answered with 400 and the
connection closed; requests that come before an answer has ended wait, and reading stops meanwhile.
"""

import asyncio
from math import inf
from typing import TYPE_CHECKING

from chutes_core.base.failures import network_of
from chutes_core.validator.gateway.plane.handler import Handler
from chutes_core.validator.gateway.plane.reader import Reader, Refused, Upgrading
from chutes_core.validator.gateway.plane.request import SMALL_BYTES, Request
from chutes_core.wire.http_server import (
    ADDRESS_FULL,
    HEAD_TIMEOUT,
    LINGER_S,
    MALFORMED,
    REFUSED_TIMEOUT_S,
    SERVER_FULL,
    SPARE_CONNECTIONS,
)

if TYPE_CHECKING:
    from chutes_core.validator.gateway.plane.server import Plane

WHOLE_WAIT_S = 1.0
UNREAD_S = 30.0  # a closing connection whose caller takes nothing of the answer is cut then
BUFFERED_BYTES = 64 * 1024  # of a body that the control plane or the reference has not read yet


class Connection:
    """An asyncio protocol (without asyncio's base class, so that it can be compiled).

    Attributes: ``deadline``, on the loop's clock; ``writable``, whether the caller keeps up.
    """

    def __init__(self, plane: "Plane") -> None:
        self.plane = plane
        self.gone = False  # the connection is closed, and whoever answers was told
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.address: tuple[str, int] | None = None
        self.server: tuple[str, int] | None = None
        self.deadline = inf
        self.writable = True
        self._network: str | None = None
        self._handler: Handler | None = None
        self._current: Request | None = None  # what is answered now
        self._queued: list[Request] = []
        self._reader = Reader(plane.limits, plane.heads, self._found)
        self._reading = True
        self._over = False  # nothing is parsed any more
        self._eof = False
        self._unsent_bytes = 0  # at the last look at a connection that is being closed

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and await its first request for a bounded time."""
        self.transport = transport  # type: ignore[assignment]
        self.address = _address(transport.get_extra_info("peername"))
        self.server = _address(transport.get_extra_info("sockname"))
        plane, limits = self.plane, self.plane.limits
        self._network = network_of(self.address[0] if self.address else None)
        mine = plane.joined(self, self._network)
        over = len(plane.connections) - limits.max_connections
        if over > SPARE_CONNECTIONS:
            self.transport.abort()
        elif over > 0:
            self._reader.refusal = SERVER_FULL
        elif limits.max_per_address and mine > limits.max_per_address:
            self._reader.refusal = ADDRESS_FULL
        wait_s = REFUSED_TIMEOUT_S if self._reader.refusal else limits.head_timeout_s
        self.deadline = plane.now() + wait_s

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless nothing came of what was sent before."""
        if self._over:
            self._more_of_stream(data)
            return
        reader = self._reader
        if self._current is None:
            request = reader.known(data)
            if request is not None:
                self._current = request
                self._begin(request)
                return
            if not reader.in_head:
                limit = self.plane.now() + self.plane.limits.head_timeout_s
                self.deadline = min(self.deadline, limit)
        try:
            reader.feed(data)
        except Upgrading as upgrading:
            self._over = True  # answered as plain HTTP, or as a stream, then closed
            self._step()
            self._more_of_stream(data[upgrading.at :])
        except Refused:
            self._refuse()
        else:
            self._step()

    def _more_of_stream(self, data: bytes) -> None:
        """Keep what comes behind a request for a stream, for whoever reads it; drop all else."""
        request = self._last()
        if data and request is not None and request.is_stream:
            request.take(data)
            if self._handler is not None and request is self._current:
                self._handler.on_body()
            self.balance()

    def _last(self) -> Request | None:
        """Return the last request that came and has no whole answer."""
        return self._queued[-1] if self._queued else self._current

    def eof_received(self) -> bool:
        """Take a half-close as the caller's leaving while a call runs (see docs/gateway.md).

        So it is also where the rest of a body can never come.
        """
        self._eof = True
        handler, request = self._handler, self._current
        whole = request is not None and request.complete and not request.is_stream
        return whole and handler is not None and handler.answers_after_eof

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell whoever answers on it."""
        del exc
        self._over = self.gone = True
        self.deadline = inf
        self.plane.left(self, self._network)
        self._queued.clear()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.on_caller_left()

    def pause_writing(self) -> None:
        """Tell the handler that the caller does not keep up."""
        self.writable = False
        if self._handler is not None:
            self._handler.on_writable(writable=False)

    def resume_writing(self) -> None:
        """Tell the handler that the caller has caught up."""
        self.writable = True
        if self._handler is not None:
            self._handler.on_writable(writable=True)

    # Between requests.

    def _found(self, request: Request) -> None:
        """Take a request whose head is whole."""
        if self._current is None:
            self._current = request
        else:
            self._queued.append(request)

    def _step(self) -> None:
        """Go on after bytes have come: begin an answer, or tell who answers that there is more."""
        request = self._current
        if request is None:
            return
        if self._handler is not None:
            if self._reader.coming is request or request.complete:
                self._handler.on_body()
        elif request.complete:
            self._begin(request)
        elif self._may_wait(request):
            wait_s = min(WHOLE_WAIT_S, self.plane.body_timeout_s)
            self.deadline = min(self.deadline, self.plane.now() + wait_s)
        else:
            self._begin(request)
        self.balance()

    def _may_wait(self, request: Request) -> bool:
        """Tell whether the rest of a body is worth a short wait: it is small and announced."""
        length = request.length
        return length is not None and length <= SMALL_BYTES and not request.shape.expects

    def _begin(self, request: Request) -> None:
        self.deadline = inf
        self.plane.answer(self, request)

    def taken_by(self, handler: Handler) -> None:
        """Note who answers the current request."""
        self._handler = handler

    def answered(self, *, keep: bool) -> None:
        """End the current request's answer; ``keep`` the connection if its caller wants so too."""
        request, self._current, self._handler = self._current, None, None
        assert request is not None
        if self.transport.is_closing():
            return
        request.dropped = True
        if not (keep and request.keep_alive and request.rest_is_small()) or self.plane.stopping:
            self._close_soon(request)
            return
        self.deadline = self.plane.now() + self.plane.limits.keep_alive_s
        if self._queued and not (self._eof and self._is_left_alone(self._queued[0])):
            self._current = self._queued.pop(0)
            self.plane.loop.call_soon(self._next)
        elif self._over or self._eof:
            self._close_soon(request)
        if not self._reading:
            self.balance()

    def _is_left_alone(self, request: Request) -> bool:
        """Tell whether a caller who sends nothing more has left a request: cut short, or a call."""
        return not request.complete or self.plane.is_call(request)

    def _next(self) -> None:
        if self._handler is None and not self.transport.is_closing():
            self._step()

    def _close_soon(self, request: Request) -> None:
        """Close once all is sent; what still comes of a body or stream would take it back."""
        lingers = request.is_stream and self.transport.can_write_eof()
        if request.complete and not lingers:
            self._shut()
            return
        self._over = True
        self._queued.clear()
        self._linger()
        if lingers and (unsent := self.transport.get_write_buffer_size()):
            self._unsent_bytes = unsent
            self.deadline = self.plane.now() + UNREAD_S

    def _shut(self) -> None:
        """Close once all is sent, which a caller who reads nothing does not hold up for ever."""
        self._over = True
        self._queued.clear()
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self.transport.close()
        self.deadline = self.plane.now() + UNREAD_S

    def _still_reads(self) -> bool:
        """Tell whether some of what waits to be sent has left since the last look."""
        left = self.transport.get_write_buffer_size()
        before, self._unsent_bytes = self._unsent_bytes, left
        return 0 < left < before

    def _linger(self) -> None:
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.deadline = self.plane.now() + LINGER_S
        self._set_reading(reading=True)

    def _refuse(self) -> None:
        """Answer what the parser, or a bound, refused; an answer that began is cut.

        A request behind the one that is answered is dropped, and that answer is the last.
        """
        self._over = True
        self._queued.clear()
        handler, current = self._handler, self._current
        if handler is not None and current is not None and self._reader.coming is not current:
            current.keep_alive = False
            return
        self._handler = self._current = None
        if handler is not None:
            begun = handler.begun
            handler.on_caller_left()
            if begun:
                self.cut()
        if not self.transport.is_closing():
            self.transport.write((self._reader.refusal or MALFORMED).encode())
            self._linger()

    def cut(self) -> None:
        """Close an answer that has no end: what was sent may still leave, for a moment."""
        self._over = True
        self._handler = self._current = None
        self._queued.clear()
        self.transport.close()
        self.deadline = self.plane.now() + LINGER_S

    def overdue(self, now: float) -> None:
        """Act on a deadline that has passed."""
        self.deadline = inf
        if self._handler is not None:
            self._handler.on_deadline(now)
        elif self._over:
            if self._still_reads():
                self.deadline = now + UNREAD_S
            else:
                self.transport.abort()
        elif self._current is not None:
            self._begin(self._current)
            self.balance()
        elif self._reader.in_head:
            self._reader.refusal = self._reader.refusal or HEAD_TIMEOUT
            self._refuse()
        else:
            self._shut()

    def stop(self) -> None:
        """Close if nothing is answered; else after the answer, which of a websocket ends now."""
        if self._current is None:
            self._shut()
        elif self._handler is not None:
            self._handler.on_body()

    # Back-pressure towards the caller.

    def balance(self) -> None:
        """Read on, unless a request waits for its turn or a body for its reader."""
        coming = self._reader.coming or self._current
        behind = coming is not None and self._handler is not None and coming.size > BUFFERED_BYTES
        last = self._last() if self._over else None
        dropped = self._over and (last is None or not last.is_stream)
        self._set_reading(reading=dropped or not (self._queued or behind))

    def _set_reading(self, *, reading: bool) -> None:
        if reading != self._reading and not self.transport.is_closing():
            self._reading = reading
            if reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()


def _address(name: object) -> tuple[str, int] | None:
    if isinstance(name, tuple) and len(name) >= 2:
        return (str(name[0]), int(name[1]))
    return None
