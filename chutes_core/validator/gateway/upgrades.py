"""What a call that becomes a websocket has besides: its caller's byte stream, and the right answer.

Path: plane/bridge is the stream, websockets.py checks the handshake, switched.py carries the bytes.
Invariant: nothing of a caller's reaches an instance before that has answered 101 to this handshake.
"""

from dataclasses import dataclass
from typing import Protocol

from chutes_core.wire.call import ResponseHead

CALLER_STREAM = "chutes.websocket"
"""ASGI extension of a call that asks for a websocket: its value is a `CallerStream`."""


class CallerStream(Protocol):
    """The caller's side of a websocket."""

    @property
    def sound(self) -> bool:
        """Tell whether a byte stream can follow the request."""
        ...

    async def next_piece(self) -> bytes | None:
        """Return the bytes that came next; None where it has to end, for the server does."""
        ...

    async def left(self) -> None:
        """Return once the caller has left."""
        ...


@dataclass(frozen=True)
class Upgrade:
    """A sound handshake: ``accept`` is what the answer to it must say."""

    caller: CallerStream
    accept: str

    def accepted_by(self, head: ResponseHead) -> bool:
        """Tell whether an answer of status 101 is one to this handshake."""
        said = [value for name, value in head.headers if name.lower() == "sec-websocket-accept"]
        return said == [self.accept]
