"""Instances that the harness plays itself, and the book of every (key, nonce) pair that they saw.

Used by the long runs of the real validator (kill.py, soak.py, vanish.py, loop_lag.py) and by their
short forms in tests/e2e. A connection opens with a preamble, derives its two keys and then carries
frames, exactly as a runner's does; which frame counters were used under which key is what the book
keeps. Calls are answered by their path: `/echo` gives the body back, `/tokens` streams until it is
done or the caller has left, `/late` answers only when it is told to.
"""

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256

import orjson

from chutes_core.base.errors import ProtocolError
from chutes_core.base.ids import new_id
from chutes_core.wire.frames import Frame, FrameCodec, FrameKind
from chutes_core.wire.sealing import NONCE_BYTES, PREAMBLE_BYTES, ConnectionKeys, Preamble
from tests.bench.ids import Ids

TOKEN = b'data: {"token": "one of many"}\n\n'
_END = b'{"busy_us":1}'


@dataclass
class Book:
    """What all connections of all lives have used and carried.

    Attributes:
        keys: fingerprint of each key -> how many connections derived it; more than one is a repeat.
        pairs: how many (key, counter) pairs were used on connections that are closed; the counters
            of one key grow by one a frame.
        bad_seals: frames that did not open under the next counter, as a reused one would not.
        calls: the invocation id of every CALL frame.
    """

    calls: Ids
    keys: Counter[bytes] = field(default_factory=Counter)
    pairs: int = 0
    bad_seals: int = 0
    bad_preambles: int = 0
    connections: int = 0
    open: int = 0
    busy: int = 0
    renewals: int = 0

    @property
    def repeated_keys(self) -> int:
        """How many keys were derived by more than one connection, or for both directions."""
        return sum(count > 1 for count in self.keys.values())


class Instance:
    """One instance: what the validator must know of it, and its listening port."""

    def __init__(self, book: Book, *, tokens: int = 20, token_s: float = 0.02) -> None:
        self.book = book
        self.launch_id = new_id()
        self.root = secrets.token_bytes(32)
        self.ticket = secrets.token_bytes(32)
        self.tokens = tokens
        self.token_s = token_s
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[Sealed] = set()

    async def listen(self) -> None:
        """Take a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Sealed(self), "127.0.0.1", self.port, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for each in tuple(self._open):
            each.transport.abort()

    def joined(self, connection: "Sealed") -> None:
        self._open.add(connection)
        self.book.connections += 1
        self.book.open += 1

    def left(self, connection: "Sealed") -> None:
        if connection in self._open:
            self._open.discard(connection)
            self.book.open -= 1


class Sealed(asyncio.Protocol):
    """The instance's end of one connection."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._book = instance.book
        self._codec: FrameCodec | None = None
        self._rest = b""
        self._call: dict | None = None
        self._body: list[bytes] = []
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._instance.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._instance.left(self)
        if self._codec is not None:
            # Both count the frames of their direction, one nonce each.
            self._book.pairs += self._codec._opener._counter + self._codec._sealer._counter
        self._done()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def data_received(self, data: bytes) -> None:
        if self._codec is None:
            self._rest += data
            if len(self._rest) < PREAMBLE_BYTES:
                return
            if not self._agree(self._rest[:PREAMBLE_BYTES]):
                return
            data = self._rest[PREAMBLE_BYTES:]
        try:
            frames = self._codec.feed(data)
        except ProtocolError:
            self._book.bad_seals += 1
            self.transport.abort()
            return
        for frame in frames:
            self._take(frame)

    def _agree(self, opening: bytes) -> bool:
        try:
            preamble = Preamble.parse(opening)
        except ProtocolError:
            preamble = None
        if preamble is None or not preamble.is_from(self._instance.ticket):
            self._book.bad_preambles += 1
            self.transport.abort()
            return False
        nonce = secrets.token_bytes(NONCE_BYTES)
        keys = ConnectionKeys.derive(
            self._instance.root, validator_nonce=preamble.nonce, instance_nonce=nonce
        )
        for key in (keys.to_instance, keys.to_validator):
            self._book.keys[sha256(key).digest()] += 1
        self._codec = FrameCodec.for_instance(keys)
        self.transport.write(nonce)
        return True

    def _take(self, frame: Frame) -> None:
        kind = frame.kind
        if kind is FrameKind.CALL:
            self._call, self._body = orjson.loads(frame.payload), []
            self._book.calls.add(self._call["invocation_id"])
            self._busy = True
            self._book.busy += 1
        elif kind is FrameKind.BODY:
            self._body.append(frame.payload)
        elif kind is FrameKind.END:
            self._answer()
        elif kind is FrameKind.PING:
            self._send((FrameKind.PONG, frame.payload))
        elif kind in (FrameKind.RENEW, FrameKind.STOP):
            self._book.renewals += kind is FrameKind.RENEW
            self._send((FrameKind.OK, b"{}"))

    def _answer(self) -> None:
        assert self._call is not None
        path = self._call["path"]
        if path.endswith("/late"):
            return  # it answers never; the caller leaves
        if path.endswith("/tokens"):
            head = {"status": 200, "headers": [["content-type", "text/event-stream"]]}
            self._send((FrameKind.RESPONSE, orjson.dumps(head)))
            self._stream(self._instance.tokens)
            return
        body = b"".join(self._body)
        head = {"status": 200, "headers": [["content-length", str(len(body))]]}
        pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
        opening = (FrameKind.RESPONSE, orjson.dumps(head))
        if len(pieces) == 1:  # as a runner does with what is small
            assert self._codec is not None
            whole = self._codec.seal_together(
                opening, (FrameKind.BODY, body), (FrameKind.END, _END)
            )
            self.transport.write(whole)
        else:
            pairs = ((FrameKind.BODY, piece) for piece in pieces)
            self._send(opening, *pairs, (FrameKind.END, _END))
        self._done()

    def _stream(self, left: int) -> None:
        if self.transport.is_closing():
            return
        if left == 0:
            self._send((FrameKind.END, _END))
            self._done()
            return
        if not self._paused:
            self._send((FrameKind.BODY, TOKEN))
            left -= 1
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._instance.token_s, self._stream, left)

    def _send(self, *frames: tuple[FrameKind, bytes]) -> None:
        assert self._codec is not None
        self.transport.write(b"".join(self._codec.seal(kind, data) for kind, data in frames))

    def _done(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy:
            self._busy = False
            self._book.busy -= 1
