"""A call that becomes a websocket: the chute's own server answers its handshake, then bytes go.

Path: executor (CALL with ``upgrade``) -> here -> 127.0.0.1, the port of a passthrough cord, and
back. Runs on the session's loop: no code of the user's is on the way. Invariants: only the port and
path that a passthrough cord declares are dialled, on loopback; no byte of the caller's goes there
before its 101; the call gives its slot back before its END leaves, and exactly once.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ProtocolError, Unavailable
from chutes_core.runner.asgi import HOP_BY_HOP, response_head
from chutes_core.runner.link import Link
from chutes_core.wire.bridge import PIECE_BYTES, carry
from chutes_core.wire.call import HEADER_INVOCATION, SWITCHING, WEBSOCKET, CallEnd, CallHead
from chutes_core.wire.frames import BODY_CHUNK_BYTES, FrameKind
from chutes_core.wire.sealed_end import SealedEnd

if TYPE_CHECKING:
    import h11

DIAL_S = 10.0
HANDSHAKE_S = 60.0
IDLE_S = 1800.0  # the validator's limit is shorter; this one is for when it forgets
MAX_HEAD_BYTES = 64 * 1024
MAX_REFUSAL_BYTES = 1024 * 1024  # of the body of an answer that is no 101
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Passthrough:
    """Where a passthrough cord leads: a server of the chute's own, and headers that it gets."""

    port: int
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What the server said to the handshake; ``rest`` is its body, or what follows a 101."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    rest: bytes


class Websocket:
    """One call.

    Args:
        link: the validator's connection.
        head: of the call.
        way: where it leads; None where no passthrough cord is served at its path.
        let_go: called once, when the chute's server is done with the call.
        clock: says how long that took.
    """

    def __init__(
        self,
        link: Link,
        head: CallHead,
        way: Passthrough | None,
        let_go: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._begun_us = clock.monotonic_us()
        self._link = link
        self._head = head
        self._way = way
        self._let_go: Callable[[], None] | None = let_go
        self._left = asyncio.Event()
        self._server: ServerEnd | None = None

    async def run(self) -> None:
        """Carry the call to its end; the connection is good for no other one.

        Raises:
            Unavailable: the validator is gone.
            ProtocolError: it broke the protocol.
        """
        try:
            if self._way is None:
                await self._say(404, "cord_not_found", "no passthrough cord is served here", "")
                return
            await self._to(self._way)
        finally:
            self.let_go()

    def leave(self) -> None:
        """End it: the server sees its connection close, and the caller gets an END."""
        self._left.set()
        if self._server is not None:
            self._server.close()

    def let_go(self) -> None:
        """Give the call's slot back."""
        if self._let_go is not None:
            self._let_go()
            self._let_go = None

    def _ending(self) -> tuple[FrameKind, bytes]:
        """Return the frame that ends the answer; the slot is free before it leaves."""
        self.let_go()
        busy_us = max(0, self._clock.monotonic_us() - self._begun_us)
        return FrameKind.END, CallEnd(busy_us=busy_us).model_dump_json().encode()

    async def _to(self, way: Passthrough) -> None:
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(LOOPBACK, way.port), DIAL_S
            )
        except (OSError, asyncio.TimeoutError):
            await self._unreachable(way)
            return
        server = self._server = ServerEnd(reader, writer)
        try:
            answer = await self._handshake(way, server)
            if answer is not None:
                await self._pass_on(answer, server)
        finally:
            server.abort()

    async def _handshake(self, way: Passthrough, server: "ServerEnd") -> Answer | None:
        """Return the server's answer; None where there is none, and all is said."""
        asking = asyncio.ensure_future(_ask(self._head, way, server))
        speaking = asyncio.ensure_future(self._link.peek())
        leaving = asyncio.ensure_future(self._left.wait())
        tasks: tuple[asyncio.Future[Any], ...] = (asking, speaking, leaving)
        try:
            await asyncio.wait(tasks, timeout=HANDSHAKE_S, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                await self._link.send_error(Unavailable("draining", "this instance is ending"))
            elif asking.done():
                return asking.result()
            elif not speaking.done():
                await self._unreachable(way)
            elif speaking.result() is not None:
                raise ProtocolError("unexpected_frame", "a frame before the websocket has begun")
        except _Nonsense as error:
            await self._link.send_error(ProtocolError("bad_response", str(error)))
        finally:
            await _end(tasks)
        return None

    async def _pass_on(self, answer: Answer, server: "ServerEnd") -> None:
        head = response_head(answer.status, answer.headers)
        start = (FrameKind.RESPONSE, head.model_dump_json().encode())
        rest = [
            (FrameKind.BODY, answer.rest[at : at + BODY_CHUNK_BYTES])
            for at in range(0, len(answer.rest), BODY_CHUNK_BYTES)
        ]
        if answer.status != SWITCHING:
            server.abort()
            await self._link.send(start, *rest, self._ending())
            return
        await self._link.send(start, *rest)
        if self._left.is_set():
            server.close()
        await carry(_CallEnd(self._link, self._ending), server, idle_s=IDLE_S)

    async def _unreachable(self, way: Passthrough) -> None:
        hint = f"does it listen on port {way.port} after start-up?"
        text = "the chute's own server did not answer"
        await self._say(502, "passthrough_unreachable", text, hint)

    async def _say(self, status: int, code: str, text: str, hint: str) -> None:
        """Answer in the chute's name, in the form of sdk/serving."""
        body = json.dumps({"detail": text, "code": code, "hint": hint}).encode()
        length = (b"content-length", str(len(body)).encode())
        head = response_head(status, ((b"content-type", b"application/json"), length))
        start = (FrameKind.RESPONSE, head.model_dump_json().encode())
        await self._link.send(start, (FrameKind.BODY, body), self._ending())


class ServerEnd:
    """The chute's own server, as an end of a bridge: however its connection ends, that is its end.

    What is sent to one that takes nothing more is dropped, for its END is on its way.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ended = False

    async def receive(self) -> bytes | None:
        """Return what came; None once, at the connection's end."""
        if self._ended:
            await asyncio.Event().wait()
        try:
            data = await self._reader.read(PIECE_BYTES)
        except OSError:
            data = b""
        self._ended = not data
        return data or None

    async def send(self, data: bytes) -> None:
        """Write it, unless nobody takes it any more."""
        if self._ended or self._writer.is_closing():
            return
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            return

    async def send_end(self) -> None:
        """Close: who called sends no more, which no websocket goes on after."""
        self.close()

    def close(self) -> None:
        """Close once what was sent has left."""
        self._writer.close()

    def abort(self) -> None:
        """Cut the connection, unless it is closed."""
        self._writer.transport.abort()


class _CallEnd(SealedEnd):
    """The caller; told of the end by ``ending``, which frees the slot."""

    def __init__(self, link: Link, ending: Callable[[], tuple[FrameKind, bytes]]) -> None:
        super().__init__(link, link.next_frame)
        self._sending = link
        self._ending = ending

    async def send_end(self) -> None:
        """End the call."""
        await self._sending.send(self._ending())


class _Nonsense(Exception):
    """The server's answer is no HTTP, or no websocket's."""


class PassthroughCord(Protocol):
    """What is read of a cord here."""

    @property
    def passthrough(self) -> bool: ...  # noqa: D102 # as sdk/cord says
    @property
    def passthrough_path(self) -> str: ...  # noqa: D102
    @property
    def passthrough_port(self) -> int | None: ...  # noqa: D102
    @property
    def public_api_path(self) -> str | None: ...  # noqa: D102
    @property
    def public_api_method(self) -> str | None: ...  # noqa: D102


def passthroughs(
    cords: Iterable[PassthroughCord], headers: Mapping[str, str]
) -> dict[str, Passthrough]:
    """Return by public path where those cords lead that a handshake can reach: GET, passthrough."""
    return {
        cord.public_api_path: Passthrough(cord.passthrough_port, cord.passthrough_path, headers)
        for cord in cords
        if cord.passthrough
        and cord.passthrough_port is not None
        and cord.public_api_path is not None
        and cord.public_api_method == "GET"
    }


async def _ask(head: CallHead, way: Passthrough, server: ServerEnd) -> Answer:
    """Send the handshake to the chute's server and return what it says.

    Raises:
        _Nonsense: it is no HTTP, too long, or of status 101 and no websocket's.
    """
    import h11  # only chutes with passthrough cords pay for it

    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    try:
        request = h11.Request(method="GET", target=_target(head, way), headers=_headers(head, way))
        await server.send((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        return await _answer(http, server)
    except h11.ProtocolError as error:
        raise _Nonsense(f"the chute's own server broke HTTP: {error}") from error


async def _answer(http: "h11.Connection", server: ServerEnd) -> Answer:
    import h11

    said: h11.Response | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await server.receive() or b"")
        elif isinstance(event, h11.InformationalResponse):
            if event.status_code == SWITCHING:
                return _switched(event, http.trailing_data[0])
        elif isinstance(event, h11.Response):
            said = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_REFUSAL_BYTES:
                raise _Nonsense(f"a refusal has at most {MAX_REFUSAL_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage) and said is not None:
            length = (b"content-length", str(len(body)).encode())
            kept = (pair for pair in said.headers if pair[0] != length[0])
            return Answer(said.status_code, (*kept, length), bytes(body))
        else:
            raise _Nonsense("the chute's own server ended before its answer did")


def _switched(event: "h11.InformationalResponse", rest: bytes) -> Answer:
    headers = tuple(event.headers)
    if dict(headers).get(b"upgrade", b"").strip().lower() != WEBSOCKET.encode():
        raise _Nonsense("the chute's own server switched to something that is no websocket")
    return Answer(SWITCHING, headers, rest)


def _target(head: CallHead, way: Passthrough) -> str:
    return f"{way.path}?{head.query}" if head.query else way.path


def _headers(head: CallHead, way: Passthrough) -> list[tuple[str, str]]:
    """Return the handshake's headers: the caller's, the chute's own, and those of this hop."""
    own = {name.lower(): value for name, value in way.headers.items()}
    hop = {
        "host": f"{LOOPBACK}:{way.port}",
        "connection": "Upgrade",
        "upgrade": WEBSOCKET,
        HEADER_INVOCATION: head.invocation_id,
    }
    ours = HOP_BY_HOP | own.keys() | hop.keys() | {"content-length"}
    kept = [(name, value) for name, value in head.headers if name.lower() not in ours]
    mine = [(name, value) for name, value in own.items() if name not in HOP_BY_HOP | hop.keys()]
    return [*hop.items(), *kept, *mine]


async def _end(tasks: "Iterable[asyncio.Future[Any]]") -> None:
    """Cancel tasks and wait until they have ended, whatever they come to."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
