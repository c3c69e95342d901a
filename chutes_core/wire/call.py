"""One call over a sealed connection: CALL, BODY*, END one way; RESPONSE, BODY*, END back.

A CALL with ``upgrade`` has neither body nor END: where the RESPONSE is 101, BODY frames carry the
bytes of the other protocol both ways until the instance's END, or until a side closes.
Invariant: an ERROR frame may stand in place of RESPONSE (the call can then be tried elsewhere) or
inside the stream of BODY frames (it cannot). A side that gives up closes the connection.
"""

from typing import Literal

from pydantic import Field

from chutes_core.wire.model import Message, RecordId

HEADER_INVOCATION = "x-chutes-invocationid"
HEADER_CALL = "x-chutes-call"  # how a cord's body is to be read; no caller's own passes the gateway
CALL_BY_ARGUMENTS = "arguments"  # the body is {"args": [], "kwargs": {}}
WEBSOCKET = "websocket"
SWITCHING = 101  # the status of a RESPONSE behind which the connection carries another protocol


def _is_none(value: object) -> bool:
    return value is None


class CallHead(Message):
    """Payload of CALL: an HTTP request line and headers, names in lower case.

    ``upgrade`` is left out of a call that asks for none, so that a runner which does not know it
    serves those, and refuses the others.
    """

    invocation_id: RecordId
    method: str = Field(max_length=10)
    path: str = Field(max_length=2048)
    query: str = Field(default="", max_length=8192)
    headers: tuple[tuple[str, str], ...] = Field(default=(), max_length=100)
    upgrade: Literal["websocket"] | None = Field(default=None, exclude_if=_is_none)


class ResponseHead(Message):
    """Payload of RESPONSE."""

    status: int = Field(ge=100, le=599)
    headers: tuple[tuple[str, str], ...] = Field(default=(), max_length=100)


class CallEnd(Message):
    """Payload of the END that closes a response: what the instance says it did."""

    busy_us: int = Field(ge=0)
