"""One call on one sealed connection: CALL, BODY*, END out; RESPONSE, BODY*, END back.

Path: forward -> exchange -> relay -> runner. Invariant: every wait has a deadline; `clean` is true
only after a whole exchange, and only then may the connection carry another call.
"""

import asyncio
from dataclasses import dataclass
from typing import TypeVar

import anyio
from pydantic import ValidationError

from chutes_core.base.errors import ProtocolError, TimedOut
from chutes_core.validator.domain.invocations import Outcome
from chutes_core.validator.gateway.call import Call
from chutes_core.validator.gateway.headers import to_caller
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.gateway.pool import Carrier
from chutes_core.validator.gateway.reply import Reply
from chutes_core.validator.gateway.told import call_pairs
from chutes_core.wire.call import SWITCHING, ResponseHead
from chutes_core.wire.frames import BODY_CHUNK_BYTES, Frame, FrameKind
from chutes_core.wire.launch import FrameError
from chutes_core.wire.model import Message

_M = TypeVar("_M", bound=Message)

PAID_TIME_OVER = "paid_time_over"
INLINE_BYTES = BODY_CHUNK_BYTES  # a larger body is sent beside the wait for the answer


@dataclass(frozen=True)
class Ending:
    """How an answer ended that had begun; one that is not ``whole`` must look cut off."""

    outcome: Outcome
    whole: bool


class Exchange:
    """Runs once: `ask`, then `stream` if there was a RESPONSE; `end` in every case."""

    def __init__(self, connection: Carrier, call: Call, limits: GatewayLimits) -> None:
        self._connection = connection
        self._call = call
        self._limits = limits
        self._deadline = anyio.current_time() + call.paid_s(limits.max_call_s)
        self._sending: asyncio.Future[None] | None = None
        self._ended = False

    @property
    def clean(self) -> bool:
        """Tell whether both directions came to their ends."""
        return self._ended and (self._sending is None or self._sending.done())

    async def ask(self) -> ResponseHead | FrameError:
        """Send the call; return the head of the answer, or the refusal in its place.

        Raises:
            TimedOut: ``first_byte_timeout``, the instance's failure, or ``paid_time_over``.
            Unavailable: the connection ended.
            ProtocolError: the instance broke the protocol.
        """
        with anyio.CancelScope(deadline=self._by(self._limits.first_byte_timeout_s)):
            frame = await self._ask()
            if frame.kind is FrameKind.ERROR:
                return _parse(FrameError, frame)
            if frame.kind is not FrameKind.RESPONSE:
                raise ProtocolError("unexpected_frame", f"got {frame.kind.name} for a RESPONSE")
            head = _parse(ResponseHead, frame)
            if head.status < 200 and not self._switches(head):
                raise ProtocolError("bad_response", "the instance sent an interim status")
            return head
        if anyio.current_time() >= self._deadline:
            raise paid_time_over()
        raise TimedOut("first_byte_timeout", "the instance gave no answer in time")

    async def stream(self, head: ResponseHead, reply: Reply) -> Ending:
        """Pass the answer on, all but its last byte.

        A call whose paid time runs out, or whose caller stops reading, is cut on the caller's
        account; an instance that stops sending is the instance's failure.

        Raises:
            TimedOut: ``idle_timeout``.
            Unavailable: the connection ended.
            ProtocolError: the instance broke the protocol.
        """
        headers = to_caller(head.headers)
        caller_is_slow = True
        with anyio.CancelScope(deadline=self._by(self._limits.idle_timeout_s)) as scope:
            await reply.start(head.status, headers, call_pairs(self._call))
            while True:
                caller_is_slow = False
                scope.deadline = self._by(self._limits.idle_timeout_s)
                frame = await self._connection.receive()
                if frame.kind is FrameKind.BODY:
                    if self._call.tail is not None:
                        self._call.tail.add(frame.payload)
                    caller_is_slow = True
                    await reply.chunk(frame.payload)
                elif frame.kind is FrameKind.END:
                    reply.check_whole()
                    self._ended = self._call.upgrade is None  # else its runner closes behind it
                    return Ending("chute_error" if head.status >= 500 else "ok", whole=True)
                elif frame.kind is FrameKind.ERROR:
                    return Ending("chute_error", whole=False)
                else:
                    raise ProtocolError("unexpected_frame", f"{frame.kind.name} in a response")
        if caller_is_slow or anyio.current_time() >= self._deadline:
            return Ending("client_gone", whole=False)
        raise TimedOut("idle_timeout", "the instance stopped sending")

    @property
    def deadline(self) -> float:
        """Return when the call's paid time is over, on anyio's clock."""
        return self._deadline

    def end(self) -> None:
        """Stop sending, if that still goes on."""
        if self._sending is not None and not self._sending.done():
            self._sending.cancel()

    def _switches(self, head: ResponseHead) -> bool:
        """Tell whether the answer makes of the connection what the call asked for."""
        upgrade = self._call.upgrade
        return upgrade is not None and head.status == SWITCHING and upgrade.accepted_by(head)

    def _by(self, seconds: float) -> float:
        return min(anyio.current_time() + seconds, self._deadline)

    async def _ask(self) -> Frame:
        if len(self._call.body) <= INLINE_BYTES:
            await self._send()
        else:
            self._sending = asyncio.ensure_future(self._send())
            self._sending.add_done_callback(_seen)
        return await self._connection.receive()

    async def _send(self) -> None:
        connection, body = self._connection, self._call.body
        head = self._call.head
        if self._call.upgrade is not None:
            await connection.send(FrameKind.CALL, head)  # what follows is the websocket's
            return
        if len(body) <= BODY_CHUNK_BYTES:
            bodies = [(FrameKind.BODY, body)] if body else []
            await connection.send_together((FrameKind.CALL, head), *bodies, (FrameKind.END, b""))
            return
        await connection.send(FrameKind.CALL, head)
        for start in range(0, len(body), BODY_CHUNK_BYTES):
            await connection.send(FrameKind.BODY, body[start : start + BODY_CHUNK_BYTES])
        await connection.send(FrameKind.END)


def paid_time_over() -> TimedOut:
    """Return what ends a call whose paid time ran out before an answer began."""
    return TimedOut(
        "paid_time_over",
        "the call ran as long as it is paid for, and no answer began",
        hint="nothing was charged; ask for less in one call, or deploy with a larger bound",
    )


def _seen(sending: "asyncio.Future[None]") -> None:
    """Take note of a failed sending: the receiving side meets the same lost connection."""
    if not sending.cancelled():
        sending.exception()


def _parse(model: type[_M], frame: Frame) -> _M:
    try:
        return model.model_validate_json(frame.payload)
    except ValidationError as error:
        raise ProtocolError("bad_frame", f"an unusable {frame.kind.name}") from error
