"""The validator's end of a sealed connection as a bare asyncio protocol.

Path: pool -> link -> relay -> runner. It does what wire/connection does on streams, with one thing
more: a ``sink`` gets each frame as a plain call, so that a call needs no task and no future.
Invariant: bytes on the wire are those of wire/frames (tested against it); frames that come while
nobody asked make the connection unusable, so that no answer reaches the wrong call.
"""

import asyncio
from collections import deque
from typing import Final, Protocol, cast

import anyio

from chutes_core.base.errors import ChutesError, ProtocolError, TimedOut, Unavailable
from chutes_core.validator.domain.snapshot import InstanceView
from chutes_core.wire.frames import MAX_PAYLOAD_BYTES, Frame, FrameKind
from chutes_core.wire.sealing import (
    NONCE_BYTES,
    PROVEN,
    TAG_BYTES,
    ConnectionKeys,
    Opener,
    Preamble,
    Sealer,
)
from chutes_core.wire.together import (
    TOGETHER,
    fits_together,
    frame_of_three,
    frame_of_two,
    pack_together,
    three_of,
    unpack_together,
)

MAX_QUEUED_FRAMES: Final = 8
_HEAD_BYTES: Final = 4
_OVERHEAD_BYTES: Final = 1 + TAG_BYTES
_KINDS: Final = {int(kind): kind for kind in FrameKind if kind is not FrameKind.TOGETHER}
_TOGETHER_BYTE: Final = bytes([TOGETHER])
_BYTES: Final = {kind: bytes([kind]) for kind in FrameKind}
_CALL: Final = int(FrameKind.CALL)
_BODY: Final = int(FrameKind.BODY)
_END: Final = int(FrameKind.END)
_SMALL_BYTES: Final = MAX_PAYLOAD_BYTES - 64  # head and body of a call that fit into one frame


class Sink(Protocol):
    """Takes the frames of one call."""

    def on_frame(self, kind: FrameKind, payload: bytes) -> None:
        """Take one frame."""
        ...

    def on_three(
        self, one: int, payload: bytes, two: int, more: bytes, three: int, last: bytes
    ) -> bool:
        """Take three messages that came in one frame, and alone; False: they come one by one."""
        ...

    def on_pieces(self, pieces: list[bytes]) -> bool:
        """Take BODY messages that came one behind the other; False: they come one by one."""
        ...

    def on_batch(self) -> None:
        """All frames that came together were given."""
        ...

    def on_lost(self, error: ChutesError) -> None:
        """The connection is over."""
        ...


class Link:
    """Frames over one TCP connection, an asyncio protocol; made by `open_link`.

    It has no base class: one of asyncio's would keep it from being compiled.

    Attributes:
        sink: takes frames while a call of the fast path runs; without one they are queued for
            `receive`.
    """

    def __init__(self, root: bytes, preamble: Preamble) -> None:
        self.sink: Sink | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._root = root
        self._preamble = preamble
        self._transport: asyncio.Transport | None = None
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._rest = b""
        self._frames: deque[Frame] = deque()
        self._error: ChutesError | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._reading = True

    # The protocol's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open with the preamble."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._transport.write(self._preamble.to_bytes())

    def data_received(self, data: bytes) -> None:
        """Open the frames that are now whole, and pass them on."""
        if self._error is not None:
            return
        if self._rest:
            data = self._rest + data
        if self._opener is None:
            if len(data) < NONCE_BYTES:
                self._rest = data
                return
            data = self._agree(data)
        try:
            if self.sink is None or not self._took_one(data, self._opener):  # type: ignore[arg-type]
                self._take(data, self._opener)  # type: ignore[arg-type]
        except ProtocolError as error:
            self._fail(error)
            return
        if self.sink is not None:
            self.sink.on_batch()

    def eof_received(self) -> bool:
        """Close: the peer has."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        del exc
        self._fail(_lost())

    def pause_writing(self) -> None:
        """Make `send` wait."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Let `send` go on."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # The fast path's side.

    def write(self, *messages: tuple[FrameKind, bytes]) -> None:
        """Send messages in one write, and in one frame where they fit, without waiting.

        Raises:
            ProtocolError: a payload is over MAX_PAYLOAD_BYTES.
        """
        assert self._transport is not None
        assert self._sealer is not None
        seal = self._sealer.seal
        if fits_together(messages, MAX_PAYLOAD_BYTES):
            plain = _TOGETHER_BYTE + pack_together(messages)
            self._transport.write(self._sealer.framed(plain))
            return
        parts = []
        for kind, payload in messages:
            if len(payload) > MAX_PAYLOAD_BYTES:
                raise ProtocolError("frame_too_large", f"{kind.name} of {len(payload)} bytes")
            header = (len(payload) + _OVERHEAD_BYTES).to_bytes(_HEAD_BYTES, "big")
            parts.append(header)
            parts.append(seal(_BYTES[kind] + payload, header))
        self._transport.write(b"".join(parts))

    def write_call(self, head: bytes, body: bytes) -> None:
        """Send a whole call: as `write` with its CALL, its BODY unless it is empty, and its END."""
        if len(head) + len(body) > _SMALL_BYTES:
            parts = ((FrameKind.BODY, body),) if body else ()
            self.write((FrameKind.CALL, head), *parts, (FrameKind.END, b""))
            return
        if body:
            plain = frame_of_three(_CALL, head, _BODY, body, _END)
        else:
            plain = frame_of_two(_CALL, head, _END)
        self._transport.write(self._sealer.framed(plain))  # type: ignore[union-attr]

    def hold(self) -> None:
        """Read no more for now: the caller is slower than the instance."""
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if not self._reading and self._transport is not None and self._error is None:
            self._reading = True
            self._transport.resume_reading()

    # The reference's side: what wire/connection offers.

    @property
    def usable(self) -> bool:
        """Tell whether the connection looks alive: the peer has neither closed nor spoken."""
        return self._error is None and not (self._frames or self._rest)

    @property
    def writable(self) -> bool:
        """Tell whether what was sent has left, more or less."""
        return self._writable is None

    async def send(self, kind: FrameKind, payload: bytes = b"") -> None:
        """Send one frame, waiting while the peer is slower than we are.

        Raises:
            Unavailable: ``connection_lost``.
        """
        await self.send_together((kind, payload))

    async def send_together(self, *frames: tuple[FrameKind, bytes]) -> None:
        """Send several frames in one write.

        Raises:
            Unavailable: ``connection_lost``.
        """
        if self._error is not None:
            raise _lost()
        self.write(*frames)
        while self._writable is not None:
            await asyncio.shield(self._writable)
            if self._error is not None:
                raise _lost()

    async def receive(self, timeout_s: float | None = None) -> Frame:
        """Return the next frame.

        Raises:
            Unavailable: ``connection_lost``, the peer closed.
            TimedOut: ``frame_timeout``, nothing came in time.
            ProtocolError: the peer sent what does not authenticate.
        """
        while not self._frames:
            if self._error is not None:
                raise self._error
            self._waiting = asyncio.get_running_loop().create_future()
            done, _ = await asyncio.wait((self._waiting,), timeout=timeout_s)
            self._waiting = None
            if not done:
                raise TimedOut("frame_timeout", f"nothing came within {timeout_s} s")
        frame = self._frames.popleft()
        if not self._frames:
            self.go_on()
        return frame

    def abort(self) -> None:
        """Close at once, dropping what is not sent."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(_lost())

    # Inside.

    def _agree(self, data: bytes) -> bytes:
        keys = ConnectionKeys.derive(
            self._root, validator_nonce=self._preamble.nonce, instance_nonce=data[:NONCE_BYTES]
        )
        self._sealer, self._opener = Sealer(keys.to_instance), Opener(keys.to_validator)
        if not self.ready.done():
            self.ready.set_result(None)
        return data[NONCE_BYTES:]

    def _took_one(self, data: bytes, opener: Opener) -> bool:
        """Take ``data`` if it is one whole frame; False if not, and nothing was done."""
        header = data[:_HEAD_BYTES]
        length = int.from_bytes(header, "big")
        if length != len(data) - _HEAD_BYTES or not (
            _OVERHEAD_BYTES <= length <= MAX_PAYLOAD_BYTES + _OVERHEAD_BYTES
        ):
            return False
        plain = opener.open(data[_HEAD_BYTES:], header)
        self._rest = b""
        if plain[0] == TOGETHER:
            three = three_of(plain)
            if three is None or not self.sink.on_three(*three):  # type: ignore[union-attr]
                self._messages(plain)
        else:
            self._message(plain[0], plain[1:])
        return True

    def _take(self, data: bytes, opener: Opener) -> None:
        """Take the frames that are whole; pieces of a body that came together are given at once."""
        at, size = 0, len(data)
        pieces: list[bytes] = []
        try:
            while size - at >= _HEAD_BYTES:
                begin = at + _HEAD_BYTES
                header = data[at:begin]
                length = int.from_bytes(header, "big")
                if not _OVERHEAD_BYTES <= length <= MAX_PAYLOAD_BYTES + _OVERHEAD_BYTES:
                    raise ProtocolError("bad_frame", "a frame announces an impossible length")
                end = begin + length
                if end > size:
                    break
                plain = opener.open(data[begin:end], header)
                at = end
                if plain[0] == _BODY and self.sink is not None:
                    pieces.append(plain[1:])
                    continue
                self._rest = data[at:] if at < size else b""  # `usable` looks at it
                if pieces:
                    given, pieces = pieces, []
                    self._pieces(given)
                if self._error is None:
                    self._opened(plain)
                if self._error is not None:
                    return
            self._rest = data[at:] if at < size else b""
        finally:
            if pieces:
                self._pieces(pieces)

    def _opened(self, plain: bytes) -> None:
        if plain[0] == TOGETHER:
            self._messages(plain)
        else:
            self._message(plain[0], plain[1:])

    def _pieces(self, pieces: list[bytes]) -> None:
        """Give pieces of a body to whoever takes them, at once where that is one who can."""
        if self.sink is not None and self.sink.on_pieces(pieces):
            return
        for piece in pieces:
            if self._error is None:
                self._message(_BODY, piece)

    def _messages(self, plain: bytes) -> None:
        """Give the messages of a TOGETHER frame, until the connection is over."""
        messages = unpack_together(plain, 1)
        bodies = [payload for number, payload in messages if number == _BODY]
        if len(bodies) == len(messages):
            self._pieces(bodies)
            return
        for number, payload in messages:
            self._message(number, payload)
            if self._error is not None:
                return

    def _message(self, number: int, payload: bytes) -> None:
        """Give a message to whoever takes it."""
        kind = _KINDS.get(number)
        if kind is None:
            raise ProtocolError("bad_frame", f"unknown frame kind {number}")
        if self.sink is not None:
            self.sink.on_frame(kind, payload)
        else:
            self._queue(Frame(kind, payload))

    def _queue(self, frame: Frame) -> None:
        self._frames.append(frame)
        if len(self._frames) >= MAX_QUEUED_FRAMES:
            self.hold()
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _fail(self, error: ChutesError) -> None:
        if self._error is not None:
            return
        self._error = error
        if self._transport is not None:
            self._transport.abort()
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # whoever waits sees it; nobody may be left to
        self._wake()
        self.resume_writing()
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.on_lost(error)


async def open_link(view: InstanceView, timeout_s: float) -> Link:
    """Dial an instance through its miner's relay.

    Raises:
        Unavailable: ``connect_failed`` or ``connection_lost`` (the relay knows no such launch).
        TimedOut: ``connect_timeout``.
    """
    preamble = Preamble.build(ticket=view.ticket, launch_id=view.launch_id, generation=PROVEN)
    link = Link(view.root, preamble)
    try:
        # Not asyncio.wait_for: before Python 3.12 it loses a cancellation that comes as it ends.
        with anyio.fail_after(timeout_s):
            await _dial(link, view)
    except TimeoutError as error:
        link.abort()
        raise TimedOut(
            "connect_timeout",
            f"nothing came within {timeout_s} s",
            hint="the miner's relay does not answer; other instances are tried",
        ) from error
    except OSError as error:
        link.abort()
        raise Unavailable(
            "connect_failed", f"{view.host}:{view.port} does not accept connections"
        ) from error
    except BaseException:
        link.abort()
        raise
    return link


async def _dial(link: Link, view: InstanceView) -> None:
    await asyncio.get_running_loop().create_connection(
        lambda: cast("asyncio.Protocol", link), view.host, view.port
    )
    await link.ready


def _lost() -> Unavailable:
    return Unavailable("connection_lost", "the peer closed the connection")
