"""Frames between the validator's main process and one gateway worker, over a socket pair.

A frame: u32 length of what follows, u8 kind, u32 stream, u32 length of the JSON head, the head, raw
bytes to its end; big endian. Streams number the requests that a worker passes to the control plane;
everything else has stream 0. Invariants: frames arrive whole and in order or the channel is lost;
the pair is inherited, so nobody else is at the other end, and instances' roots may pass over it.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import IntEnum

import orjson

_FRAME = struct.Struct(">IBII")
_LENGTH = struct.Struct(">I")
_REST_BYTES = _FRAME.size - _LENGTH.size
MAX_FRAME_BYTES = 512 * 1024 * 1024


class Kind(IntEnum):
    """What a frame says; the first group is said by the main process, the second by a worker."""

    SETUP = 1  # how to serve
    PICTURE = 2  # a snapshot, or what has changed since the last
    GRANT = 3  # the answer to ASK
    TOKENS = 4  # the answer to TAKE
    RECALL = 5  # give back what you do not use of these purses
    STOP = 6  # take nothing new, finish, end
    WANT = 7  # control plane: the application asks for the next message
    PUT = 8  # control plane: the application sends a message
    OVER = 9  # control plane: the application has returned

    HELLO = 32  # the journal is open
    FAILED = 33  # the worker cannot serve
    READY = 34  # it listens
    SHOWN = 35  # it decides by this picture
    ASK = 36  # more of a purse
    TAKE = 37  # more calls of a key
    RETURN = 38  # what it does not use of a purse
    RETURNED = 39  # all that a RECALL asked for was returned
    REPORT = 40  # journal, demand, calls in flight, counters
    OPEN = 41  # control plane: a request begins
    GOT = 42  # control plane: the answer to WANT
    DONE = 43  # control plane: what was PUT has left


Taking = Callable[[Kind, int, dict[str, object], bytes], None]


class Channel(asyncio.Protocol):
    """One end. Made by `connect`.

    Args:
        take: called with kind, stream, head and raw bytes of each frame.
        lost: called once when the other end is gone.
    """

    def __init__(self, take: Taking, lost: Callable[[], None]) -> None:
        self._take = take
        self._on_lost = lost
        self._transport: asyncio.Transport | None = None
        self._rest = bytearray()
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Pass on the frames that are whole now."""
        rest = self._rest
        rest += data
        at = 0
        while len(rest) - at >= _FRAME.size and not self.gone:
            length, kind, stream, head_bytes = _FRAME.unpack_from(rest, at)
            if length > MAX_FRAME_BYTES:
                self.close()
                return
            begin, end = at + _FRAME.size, at + _LENGTH.size + length
            if end > len(rest):
                break
            head = orjson.loads(rest[begin : begin + head_bytes])
            at = end
            self._take(Kind(kind), stream, head, bytes(rest[begin + head_bytes : end]))
        del rest[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that the other end is gone."""
        del exc
        if not self.gone:
            self.gone = True
            self._on_lost()

    def send(self, kind: Kind, head: object, data: bytes = b"", *, stream: int = 0) -> None:
        """Send a frame; ``head`` is what orjson writes as an object, or such JSON already."""
        if self.gone or self._transport is None:
            return
        text = head if isinstance(head, bytes) else orjson.dumps(head)
        length = _REST_BYTES + len(text) + len(data)
        self._transport.write(_FRAME.pack(length, kind, stream, len(text)) + text + data)

    def close(self) -> None:
        """Close once all is sent."""
        if self._transport is not None:
            self._transport.close()


async def connect(sock: socket.socket, take: Taking, lost: Callable[[], None]) -> Channel:
    """Return the channel on this end of a socket pair."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_unix_connection(lambda: Channel(take, lost), sock=sock)
    return channel
