"""Calls: which may run, and one call from CALL to END.

Path: session (CALL) -> `Executor.run` -> exchange -> the chute -> END or ERROR.
Invariant: at most ``concurrency`` calls hold a slot; a call gives its slot back before its END
leaves, so a caller that has seen END finds the place free; a caller that has left holds the slot
until the chute has really let go.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chutes_core.base.clock import Clock
from chutes_core.base.errors import (
    ChutesError,
    Exhausted,
    ProtocolError,
    TooLarge,
    Unavailable,
)
from chutes_core.runner.asgi import AsgiApp, scope_of
from chutes_core.runner.chute_loop import ChuteLoop
from chutes_core.runner.exchange import Exchange
from chutes_core.runner.link import Link
from chutes_core.runner.orders import parse
from chutes_core.wire.call import CallEnd, CallHead
from chutes_core.wire.frames import Frame, FrameKind

MAX_REQUEST_BYTES = 256 * 1024 * 1024
UPLOAD_AFTER_RESPONSE_S = 10.0
CANCEL_S = 1.5  # what exchange.LEAVE_GRACE_S needs, and a little


@dataclass(frozen=True)
class Service:
    """A started chute: its ASGI application and how many calls it takes at once."""

    app: AsgiApp
    concurrency: int


@dataclass
class _Slot:
    since_us: int
    exchange: Exchange | None = None
    held: bool = field(default=True)


class Executor:
    """Admits and runs calls on the chute's loop."""

    def __init__(self, chute_loop: ChuteLoop, clock: Clock) -> None:
        self._chute_loop = chute_loop
        self._clock = clock
        self._service: Service | None = None
        self._draining = False
        self._slots: list[_Slot] = []
        self._idle = asyncio.Event()
        self._idle.set()

    def serve(self, service: Service) -> None:
        """Take calls from now on."""
        self._service = service

    @property
    def active(self) -> int:
        """Calls that hold a slot."""
        return len(self._slots)

    async def run(self, link: Link, frame: Frame) -> bool:
        """Run one call; whether the connection is good for another.

        Raises:
            ProtocolError: the caller broke the protocol; the connection is lost.
            Unavailable: the caller is gone.
        """
        head = parse(CallHead, frame)
        try:
            service, slot = self._admit()
        except ChutesError as refusal:
            await link.send_error(refusal)
            return await _skip_request(link)
        return await self._run(link, head, service, slot)

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, let running ones finish within ``grace_s``, then cancel them."""
        self._draining = True
        if await self._wait_idle(grace_s):
            return
        for slot in self._slots:
            if slot.exchange is not None:
                slot.exchange.leave()
        await self._wait_idle(CANCEL_S)

    def _admit(self) -> tuple[Service, _Slot]:
        if self._draining:
            raise Unavailable("draining", "this instance is ending")
        if self._service is None:
            raise Unavailable("not_started", "this instance has no chute yet")
        if len(self._slots) >= self._service.concurrency:
            limit = self._service.concurrency
            raise Exhausted("at_capacity", f"{limit} calls are running", concurrency=limit)
        slot = _Slot(self._clock.monotonic_us())
        self._slots.append(slot)
        self._idle.clear()
        return self._service, slot

    def _release(self, slot: _Slot) -> None:
        if slot.held:
            slot.held = False
            self._slots.remove(slot)
        if not self._slots:
            self._idle.set()

    def _ended(self, slot: _Slot, running: "asyncio.Future[None]") -> None:
        self._release(slot)
        if not running.cancelled():
            running.exception()  # seen: where it matters, _answer has sent it

    async def _wait_idle(self, timeout_s: float) -> bool:
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        return True

    async def _run(self, link: Link, head: CallHead, service: Service, slot: _Slot) -> bool:
        async def finish() -> None:
            self._release(slot)
            busy_us = max(0, self._clock.monotonic_us() - slot.since_us)
            await link.send_message(FrameKind.END, CallEnd(busy_us=busy_us))

        exchange = slot.exchange = Exchange(link, self._chute_loop, finish)
        running = exchange.start(service.app, scope_of(head))
        running.add_done_callback(lambda ended: self._ended(slot, ended))
        listening = asyncio.ensure_future(_listen(link, exchange))
        answering = asyncio.ensure_future(_answer(link, exchange, running))
        with _cancelled_at_end(listening, answering):
            await asyncio.wait({listening, answering}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done() and not _went_well(listening):
                exchange.leave()
                return listening.result()
            if not answering.done():
                await asyncio.wait({answering})
            answering.result()
            if not listening.done() and not exchange.uploaded:
                await asyncio.wait({listening}, timeout=UPLOAD_AFTER_RESPONSE_S)
            return listening.result() if listening.done() else exchange.uploaded


def _went_well(listening: "asyncio.Future[bool]") -> bool:
    return listening.exception() is None and listening.result()


async def _listen(link: Link, exchange: Exchange) -> bool:
    """Read the request to its END, then watch; False when the caller has left."""
    received = 0
    while not exchange.uploaded:
        frame = await link.next_frame()
        if frame is None:
            return False
        received += len(frame.payload)
        if received > MAX_REQUEST_BYTES:
            raise TooLarge("body_too_large", f"a request is over {MAX_REQUEST_BYTES} bytes")
        if frame.kind not in (FrameKind.BODY, FrameKind.END):
            raise ProtocolError("unexpected_frame", f"{frame.kind.name} inside a request")
        exchange.uploaded = frame.kind is FrameKind.END
        await exchange.feed(frame.payload, more=not exchange.uploaded)
    if exchange.over:
        return True
    if await link.peek() is None:
        return False
    if not exchange.over:
        raise ProtocolError("unexpected_frame", "a frame before the running call has ended")
    return True


async def _answer(link: Link, exchange: Exchange, running: "asyncio.Future[None]") -> None:
    """Return when the call's last frame, END or ERROR, has gone out."""
    complete = asyncio.ensure_future(exchange.complete.wait())
    with _cancelled_at_end(complete):
        both: set[asyncio.Future[Any]] = {running, complete}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if exchange.complete.is_set():
        return
    exchange.end()
    try:
        await running
    except ChutesError as failure:
        await link.send_error(failure)


async def _skip_request(link: Link) -> bool:
    """Read a refused request to its END; False when the caller has left."""
    received = 0
    while received <= MAX_REQUEST_BYTES:
        frame = await link.next_frame()
        if frame is None:
            return False
        if frame.kind is FrameKind.END:
            return True
        if frame.kind is not FrameKind.BODY:
            raise ProtocolError("unexpected_frame", f"{frame.kind.name} inside a request")
        received += len(frame.payload)
    return False


@contextlib.contextmanager
def _cancelled_at_end(*futures: "asyncio.Future[Any]") -> Iterator[None]:
    try:
        yield
    finally:
        for future in futures:
            future.cancel()
