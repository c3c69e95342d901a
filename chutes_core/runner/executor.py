"""Calls: which may run, and one call from CALL to END.

Path: session (CALL) -> `Executor.run` -> exchange -> the chute -> END or ERROR; a websocket goes
to websockets.py in place of exchange.
Invariant: at most ``concurrency`` calls hold a slot; a call gives its slot back before its END
leaves, so a caller that has seen END finds the place free; a caller that has left holds the slot
until the chute has really let go.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote

from chutes_core.base.clock import Clock
from chutes_core.base.errors import (
    ChutesError,
    Exhausted,
    ProtocolError,
    TooLarge,
    Unavailable,
)
from chutes_core.runner.asgi import AsgiApp, Scope, scope_of
from chutes_core.runner.chute_loop import ChuteLoop
from chutes_core.runner.exchange import Exchange, Piece
from chutes_core.runner.link import Link
from chutes_core.runner.orders import parse
from chutes_core.runner.passthrough import Passthrough
from chutes_core.runner.websockets import Websocket
from chutes_core.wire.call import CallEnd, CallHead
from chutes_core.wire.frames import BODY_CHUNK_BYTES, Frame, FrameKind

MAX_REQUEST_BYTES = 256 * 1024 * 1024
UPLOAD_AFTER_RESPONSE_S = 10.0
CANCEL_S = 1.5  # what exchange.LEAVE_GRACE_S needs, and a little


@dataclass(frozen=True)
class Service:
    """A started chute: its ASGI application and how many calls it takes at once.

    ``passthroughs`` are the servers beside it that websockets may go to, by public path.
    """

    app: AsgiApp
    concurrency: int
    passthroughs: Mapping[str, Passthrough] = field(default_factory=dict)


class Leavable(Protocol):
    """A call that a connection is busy with."""

    def leave(self) -> None:
        """End it: its caller is gone, or the instance ends."""
        ...


class Executor:
    """Admits and runs calls on the chute's loop."""

    def __init__(self, chute_loop: ChuteLoop, clock: Clock) -> None:
        self._chute_loop = chute_loop
        self._clock = clock
        self._service: Service | None = None
        self._draining = False
        self._active = 0  # calls that occupy the chute
        self._calls: set[Leavable] = set()  # calls that a connection is busy with
        self._idle = asyncio.Event()
        self._idle.set()

    def serve(self, service: Service) -> None:
        """Take calls from now on."""
        self._service = service

    async def run(self, link: Link, frame: Frame) -> bool:
        """Run one call; whether the connection is good for another.

        Raises:
            ProtocolError: the caller broke the protocol; the connection is lost.
            Unavailable: the caller is gone.
        """
        head = parse(CallHead, frame)
        try:
            service = self._admit()
        except ChutesError as refusal:
            await link.send_error(refusal)
            return head.upgrade is None and await _skip_request(link)
        if head.upgrade is not None:
            await self._switch(link, head, service)
            return False
        exchange = Exchange(self._chute_loop, self._release)
        self._calls.add(exchange)
        listening = asyncio.ensure_future(_listen(link, exchange, service.app, head))
        try:
            if not await self._answer(link, exchange):
                # the caller has left or broke the protocol; else the instance ends
                return listening.done() and listening.result()
            return await _rest_of_request(listening, exchange)
        except BaseException:
            exchange.leave()
            raise
        finally:
            listening.cancel()
            self._calls.discard(exchange)
            self._note_idle()

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls, let running ones finish within ``grace_s``, then cancel them."""
        self._draining = True
        if await self._wait_idle(grace_s):
            return
        for exchange in self._calls:
            exchange.leave()
        await self._wait_idle(CANCEL_S)

    async def _switch(self, link: Link, head: CallHead, service: Service) -> None:
        """Carry a websocket to its end."""
        way = service.passthroughs.get(unquote(head.path))
        websocket = Websocket(link, head, way, self._release, self._clock)
        self._calls.add(websocket)
        try:
            await websocket.run()
        finally:
            self._calls.discard(websocket)
            self._note_idle()

    async def _answer(self, link: Link, exchange: Exchange) -> bool:
        """Make frames of the response; False when nobody waits for them any more."""
        begun_us = self._clock.monotonic_us()
        while True:
            pieces = await exchange.next_pieces(BODY_CHUNK_BYTES)
            piece = pieces[-1]
            frames = [frame for each in pieces for frame in _frames_of(each)]
            if piece.last:
                exchange.finish()
                busy_us = max(0, self._clock.monotonic_us() - begun_us)
                frames.append((FrameKind.END, CallEnd(busy_us=busy_us).model_dump_json().encode()))
            for batch in _batches(frames):
                await link.send(*batch)
            if piece.left:
                return False
            if piece.failure is not None:
                exchange.finish()
                await link.send_error(piece.failure)
            if piece.ends:
                return True
            exchange.took(len(pieces))

    def _admit(self) -> Service:
        if self._draining:
            raise Unavailable("draining", "this instance is ending")
        if self._service is None:
            raise Unavailable("not_started", "this instance has no chute yet")
        if self._active >= self._service.concurrency:
            limit = self._service.concurrency
            raise Exhausted("at_capacity", f"{limit} calls are running", concurrency=limit)
        self._active += 1
        self._idle.clear()
        return self._service

    def _release(self) -> None:
        self._active -= 1
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._active and not self._calls:
            self._idle.set()

    async def _wait_idle(self, timeout_s: float) -> bool:
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except asyncio.TimeoutError:
            return False
        return True


async def _listen(link: Link, exchange: Exchange, app: AsgiApp, head: CallHead) -> bool:
    """Read the request to its END, then watch; False when the caller has left."""
    try:
        return await _listening(link, exchange, app, scope_of(head))
    except BaseException:
        exchange.leave()  # whatever it was, nobody listens to this caller any more
        raise


async def _listening(link: Link, exchange: Exchange, app: AsgiApp, scope: Scope) -> bool:
    received = 0
    while not exchange.uploaded:
        frame = await link.next_frame()
        if frame is None:
            exchange.leave()
            return False
        body = frame.payload
        received += len(body)
        if received > MAX_REQUEST_BYTES:
            raise TooLarge("body_too_large", f"a request is over {MAX_REQUEST_BYTES} bytes")
        exchange.uploaded = _ends_request(frame)
        if not exchange.uploaded and await link.has_end():
            await link.next_frame()  # so that a small request is one piece
            exchange.uploaded = True
        await exchange.feed(app, scope, body, more=not exchange.uploaded)
    if exchange.over:
        return True
    if await link.peek() is None:
        exchange.leave()
        return False
    if not exchange.over:
        raise ProtocolError("unexpected_frame", "a frame before the running call has ended")
    return True


def _frames_of(piece: Piece) -> Iterator[tuple[FrameKind, bytes]]:
    if piece.start is not None:
        yield FrameKind.RESPONSE, piece.start.model_dump_json().encode()
    for at in range(0, len(piece.body), BODY_CHUNK_BYTES):
        yield FrameKind.BODY, piece.body[at : at + BODY_CHUNK_BYTES]


def _batches(frames: list[tuple[FrameKind, bytes]]) -> Iterator[list[tuple[FrameKind, bytes]]]:
    """Together what is small; a long body goes out piece by piece, as its reader takes it."""
    if sum(len(payload) for _, payload in frames) <= 2 * BODY_CHUNK_BYTES:
        if frames:
            yield frames
    else:
        yield from ([frame] for frame in frames)


async def _rest_of_request(listening: "asyncio.Task[bool]", exchange: Exchange) -> bool:
    """The response is out: let the request end too; whether the connection can go on."""
    if not listening.done() and not exchange.uploaded:
        await asyncio.wait({listening}, timeout=UPLOAD_AFTER_RESPONSE_S)
    return listening.result() if listening.done() else exchange.uploaded


async def _skip_request(link: Link) -> bool:
    """Read a refused request to its END; False when the caller has left."""
    received = 0
    while received <= MAX_REQUEST_BYTES:
        frame = await link.next_frame()
        if frame is None:
            return False
        if _ends_request(frame):
            return True
        received += len(frame.payload)
    return False


def _ends_request(frame: Frame) -> bool:
    if frame.kind not in (FrameKind.BODY, FrameKind.END):
        raise ProtocolError("unexpected_frame", f"{frame.kind.name} inside a request")
    return frame.kind is FrameKind.END
