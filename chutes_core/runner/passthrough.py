"""The chute's own server, as a websocket meets it: where it is, its handshake, its byte stream.

Path: websockets -> here -> 127.0.0.1. Invariants: what the server gets is a request that we wrote,
with the headers of this hop; what it answers is what h11 could read in one way only.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from chutes_core.runner.asgi import HOP_BY_HOP
from chutes_core.wire.bridge import PIECE_BYTES
from chutes_core.wire.call import HEADER_INVOCATION, SWITCHING, WEBSOCKET, CallHead

if TYPE_CHECKING:
    import h11

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


class ServerEnd:
    """The chute's own server, as an end of a bridge: however its connection ends, that is its end.

    What is sent to one that takes nothing more is dropped, for its END is on its way. A plain
    socket, as in job_socket: what the server said before it closed is read, whatever became of what
    was sent to it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self._deaf = False  # it takes no more

    async def receive(self) -> bytes | None:
        """Return what came; None once, at the connection's end."""
        if self._ended:
            await asyncio.Event().wait()
        try:
            data = await self._loop.sock_recv(self._sock, PIECE_BYTES)
        except OSError:
            data = b""
        self._ended = not data
        return data or None

    async def send(self, data: bytes) -> None:
        """Write it, unless nobody takes it any more."""
        if self._ended or self._deaf:
            return
        try:
            await self._loop.sock_sendall(self._sock, data)
        except OSError:
            self._deaf = True

    async def send_end(self) -> None:
        """Close: who called sends no more, which no websocket goes on after."""
        self.close()

    def close(self) -> None:
        """Close both directions: what was sent still leaves, and `receive` comes to the end."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def abort(self) -> None:
        """Close the connection, which nothing waits on any more; done twice it is done once."""
        self._sock.close()


class Nonsense(Exception):
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


async def ask(head: CallHead, way: Passthrough, server: ServerEnd) -> Answer:
    """Send the handshake to the chute's server and return what it says.

    Raises:
        Nonsense: it is no HTTP, too long, or of status 101 and no websocket's.
    """
    import h11  # only chutes with passthrough cords pay for it

    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    try:
        request = h11.Request(method="GET", target=_target(head, way), headers=_headers(head, way))
        await server.send((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        return await _answer(http, server)
    except h11.ProtocolError as error:
        raise Nonsense(f"the chute's own server broke HTTP: {error}") from error


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
                raise Nonsense(f"a refusal has at most {MAX_REFUSAL_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage) and said is not None:
            length = (b"content-length", str(len(body)).encode())
            kept = (pair for pair in said.headers if pair[0] != length[0])
            return Answer(said.status_code, (*kept, length), bytes(body))
        else:
            raise Nonsense("the chute's own server ended before its answer did")


def _switched(event: "h11.InformationalResponse", rest: bytes) -> Answer:
    headers = tuple(event.headers)
    if dict(headers).get(b"upgrade", b"").strip().lower() != WEBSOCKET.encode():
        raise Nonsense("the chute's own server switched to something that is no websocket")
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
