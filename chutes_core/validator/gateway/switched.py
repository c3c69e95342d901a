"""A websocket's bytes, both ways, once an instance has answered 101.

Path: forward -> here, between the caller's stream and the sealed connection. The frames of the
websocket are nobody's business here. Invariants: a direction reads on only once what it read has
been taken; every wait has an end (`idle_s` without a byte, or the call's paid time); the record is
written before the connection to the caller is closed, for it is `forward` that closes it.
"""

import asyncio

import anyio

from chutes_core.base.errors import ProtocolError
from chutes_core.validator.gateway.call import Call
from chutes_core.validator.gateway.exchange import Ending
from chutes_core.validator.gateway.headers import to_caller
from chutes_core.validator.gateway.pool import Carrier
from chutes_core.validator.gateway.reply import Reply
from chutes_core.validator.gateway.told import call_pairs
from chutes_core.validator.gateway.upgrades import CallerStream
from chutes_core.wire.call import SWITCHING, ResponseHead
from chutes_core.wire.frames import BODY_CHUNK_BYTES, FrameKind

_OK = Ending("ok", whole=True)
_CALLERS = Ending("client_gone", whole=True)


class Switched:
    """Runs once.

    Args:
        connection: to the instance; it is good for no other call afterwards.
        call: whose it is.
        caller: the other side.
        reply: what goes to the caller goes through it.
        until: when the call's paid time is over, on anyio's clock.
        idle_s: without a byte in either direction for so long it is over, and so is it where the
            caller takes none.
    """

    def __init__(
        self,
        connection: Carrier,
        call: Call,
        caller: CallerStream,
        reply: Reply,
        *,
        until: float,
        idle_s: float,
    ) -> None:
        self._connection = connection
        self._call = call
        self._caller = caller
        self._reply = reply
        self._until = until
        self._idle_s = idle_s
        self._scope = anyio.CancelScope(deadline=self._by())

    async def run(self, head: ResponseHead) -> Ending:
        """Tell the caller, and carry bytes to the end.

        Whoever idles, takes nothing, or has no paid time left is ended on the caller's account.

        Raises:
            Unavailable: the connection to the instance ended.
            ProtocolError: the instance broke the protocol.
        """
        headers = [pair for pair in to_caller(head.headers) if pair[0] != b"content-length"]
        pumps: list[asyncio.Future[Ending]] = []
        try:
            with self._scope:
                await self._reply.start(SWITCHING, headers, call_pairs(self._call))
                pumps = [asyncio.ensure_future(p()) for p in (self._downwards, self._upwards)]
                done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                return next(pump for pump in pumps if pump in done).result()
            return _CALLERS
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _upwards(self) -> Ending:
        """Bring the instance what the caller sends, until the server stops."""
        while (piece := await self._caller.next_piece()) is not None:
            self._moved()
            for start in range(0, len(piece), BODY_CHUNK_BYTES):
                part = piece[start : start + BODY_CHUNK_BYTES]
                await self._connection.send(FrameKind.BODY, part)
                self._call.streamed_in += len(part)
            self._moved()
        return _OK

    async def _downwards(self) -> Ending:
        """Bring the caller what the instance sends, until it ends."""
        while True:
            frame = await self._connection.receive()
            self._moved()
            if frame.kind is FrameKind.BODY:
                with anyio.CancelScope(deadline=self._by()) as taking:
                    await self._reply.chunk(frame.payload)
                if taking.cancelled_caught:
                    return _CALLERS
                self._moved()
            elif frame.kind is FrameKind.END:
                return _OK
            elif frame.kind is FrameKind.ERROR:
                return Ending("chute_error", whole=False)
            else:
                raise ProtocolError("unexpected_frame", f"{frame.kind.name} in a websocket")

    def _moved(self) -> None:
        self._scope.deadline = self._by()

    def _by(self) -> float:
        return min(anyio.current_time() + self._idle_s, self._until)
