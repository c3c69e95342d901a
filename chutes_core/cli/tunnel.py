"""A connection to a port of a running job: an upgraded connection to the validator.

Path: cli/forward -> here -> GET /jobs/{id}/tunnels/{port} -> wire/stream. Invariant: a connection
is either a `TunnelEnd` whose stream has begun, or a typed error; what opened it half is closed.
"""

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import anyio
import h11

from chutes_core.base.errors import ChutesError, ProtocolError, Unavailable
from chutes_core.sdk.answers import error_of
from chutes_core.sdk.client import CONNECT_TIMEOUT_S
from chutes_core.sdk.credentials import Credentials
from chutes_core.wire.bridge import PIECE_BYTES
from chutes_core.wire.stream import ALIVE, ALIVE_S, END, UPGRADE, Unpacker, pack

HANDSHAKE_S = 60.0
MAX_ERROR_BYTES = 256 * 1024


class TunnelEnd:
    """The validator's side of a stream, as an end of a bridge."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._first = first  # what came with the answer's head
        self._unpacker = Unpacker()
        self._told = False
        self._sending = asyncio.Lock()  # not every Python 3.10 lets two tasks drain one writer

    async def receive(self) -> bytes | None:
        """Return the next piece; None once at the job's end."""
        while True:
            if self._unpacker.ended and not self._told:
                self._told = True
                return None
            data, self._first = self._first, b""
            try:
                data = data or await self._reader.read(PIECE_BYTES)
            except OSError as error:
                raise _lost() from error
            if not data:
                raise _lost()
            if piece := self._unpacker.feed(data):
                return piece

    async def send(self, data: bytes) -> None:
        """Send a piece."""
        await self._put(pack(data))

    async def send_end(self) -> None:
        """End our direction."""
        await self._put(END)

    async def keep_alive(self, every_s: float = ALIVE_S) -> None:
        """Say now and then that we are there, for ever, so that no proxy takes us for dead."""
        while True:
            await asyncio.sleep(every_s)
            await self._put(ALIVE)

    def abort(self) -> None:
        """Cut it."""
        self._writer.transport.abort()

    async def _put(self, data: bytes) -> None:
        try:
            async with self._sending:
                self._writer.write(data)
                await self._writer.drain()
        except OSError as error:
            raise _lost() from error


async def open_tunnel(
    base_url: str, credentials: Credentials, job_id: str, port_name: str
) -> TunnelEnd:
    """Return a stream to a port.

    Raises:
        Unavailable: ``unreachable``.
        ChutesError: what the validator says: no such run or port, not running, not listening.
    """
    place = urlsplit(base_url)
    secure = place.scheme == "https"
    context = ssl.create_default_context() if secure else None
    try:
        with anyio.fail_after(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                place.hostname, place.port or (443 if secure else 80), ssl=context
            )
    except OSError as error:  # TimeoutError and SSLError are such
        raise Unavailable("unreachable", f"{base_url} cannot be reached: {error}") from error
    try:
        path = f"{place.path}/jobs/{quote(job_id, safe='')}/tunnels/{quote(port_name, safe='')}"
        headers = credentials.headers(None, "jobs")
        with anyio.fail_after(HANDSHAKE_S):
            first = await _shake(reader, writer, path, {"Host": place.netloc, **headers})
    except TimeoutError as error:
        writer.transport.abort()
        raise Unavailable("unreachable", f"{base_url} gave no answer in time") from error
    except OSError as error:
        writer.transport.abort()
        raise Unavailable("unreachable", f"{base_url} cut the connection: {error}") from error
    except BaseException:
        writer.transport.abort()
        raise
    return TunnelEnd(reader, writer, first)


async def _shake(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    path: str,
    headers: Mapping[str, str],
) -> bytes:
    """Ask for the stream; return what of it came with the answer.

    Raises:
        ChutesError: the validator refused.
    """
    http = h11.Connection(h11.CLIENT)
    upgrade = {"Connection": "Upgrade", "Upgrade": UPGRADE}
    asked = h11.Request(method="GET", target=path, headers=list({**headers, **upgrade}.items()))
    writer.write((http.send(asked) or b"") + (http.send(h11.EndOfMessage()) or b""))
    answer: h11.Response | None = None
    body = bytearray()
    try:
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(PIECE_BYTES))
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return bytes(http.trailing_data[0])
            elif isinstance(event, h11.Response):
                answer = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)[: MAX_ERROR_BYTES - len(body)]
            elif isinstance(event, h11.EndOfMessage) and answer is not None:
                raise _refusal(answer, bytes(body))
            else:
                raise _lost()
    except h11.RemoteProtocolError as error:
        raise _lost() from error


def _refusal(answer: h11.Response, body: bytes) -> ChutesError:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
    if answer.status_code < 400:
        return ProtocolError(
            "no_stream",
            f"the validator answered with {answer.status_code} and opened no stream",
            hint="a proxy in front of it must pass Upgrade on",
        )
    return error_of(answer.status_code, headers, body)


def _lost() -> ProtocolError:
    return ProtocolError("connection_lost", "the validator closed the connection")
