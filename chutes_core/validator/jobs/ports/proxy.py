"""One HTTP request of a caller to an http port of a run: h11 over a way, streaming both ways.

Path: api/routes/ports -> here -> reach's way -> the job's own server. Invariants: what the job sees
is a request that we wrote, with one length, without credentials, cookies or hop-by-hop headers;
what the caller sees is an answer that h11 could read in one way only, and one that broke off is
never completed; neither side's body is held, and nothing of the caller's reaches the job's socket
but by h11.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import h11

from chutes_core.base.errors import ChutesError, Invalid, ProtocolError, TimedOut, TooLarge
from chutes_core.validator.gateway.headers import (
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    MAX_QUERY,
    RawHeaders,
    to_caller,
    to_instance,
)
from chutes_core.wire.bridge import End

MAX_BODY_BYTES = 1024**3
MAX_HEAD_BYTES = 64 * 1024  # of the job's answer
SILENCE_S = 120.0  # without a byte in either direction
MAX_REQUEST_S = 3600.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RawHeader = tuple[bytes, bytes]


@dataclass(frozen=True)
class ProxyLimits:
    """Bounds of one request.

    Attributes:
        body_bytes: of the caller's body (413 above).
        silence_s: without a byte in either direction (504 before an answer, cut after).
        request_s: of the whole request.
    """

    body_bytes: int = MAX_BODY_BYTES
    silence_s: float = SILENCE_S
    request_s: float = MAX_REQUEST_S


@dataclass(frozen=True)
class PortRequest:
    """What a caller asks the job's server: ``target`` is the path and query there."""

    method: str
    target: bytes
    headers: tuple[RawHeader, ...]
    prefix: str
    port: int


def check_head(asked: PortRequest) -> h11.Request:
    """Return the request as the job sees it.

    Raises:
        Invalid: ``too_many_headers``, ``uri_too_long`` or ``bad_port_request``.
    """
    kept = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in _kept(asked)]
    headers = [
        (b"host", f"127.0.0.1:{asked.port}".encode()),
        *kept,
        (b"x-forwarded-prefix", asked.prefix.encode()),
        *_framing(asked.headers),
        (b"connection", b"close"),
    ]
    try:
        return h11.Request(method=asked.method, target=asked.target, headers=headers)
    except h11.LocalProtocolError as error:
        raise Invalid(
            "bad_port_request", f"the request cannot be passed on: {error}", hint="send plain HTTP"
        ) from error


def _kept(asked: PortRequest) -> Sequence[tuple[str, str]]:
    kept = to_instance(asked.headers)
    size = sum(len(name) + len(value) for name, value in kept)
    if len(kept) > MAX_HEADERS or size > MAX_HEADERS_BYTES:
        raise Invalid(
            "too_many_headers", f"at most {MAX_HEADERS} headers of {MAX_HEADERS_BYTES} bytes pass"
        )
    if len(asked.target) > MAX_QUERY:
        raise Invalid("uri_too_long", f"path and query have more than {MAX_QUERY} bytes")
    return kept


def _framing(headers: RawHeaders) -> list[RawHeader]:
    """Return how the body is framed: as it came; the server in front read it in one way only."""
    named = {name.lower(): value for name, value in headers}
    if b"transfer-encoding" in named:
        return [(b"transfer-encoding", b"chunked")]
    length = named.get(b"content-length")
    return [] if length is None else [(b"content-length", length)]


class Proxy:
    """Carries one request; used once.

    Args:
        end: the way to the job's server.
        request: made by `check_head`.
        limits: of this request.
    """

    def __init__(self, end: End, request: h11.Request, limits: ProxyLimits) -> None:
        self._end = end
        self._request = request
        self._limits = limits
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._now = asyncio.get_running_loop().time
        self._moved_at = self._now()
        self._begun = False
        self._ended = False  # the job's server sends no more
        self._deaf = False  # it takes no more

    async def run(
        self, receive: Receive, send: Send, *, closed: Awaitable[object] | None = None
    ) -> bool:
        """Answer the caller; whether the answer is whole.

        Raises:
            ChutesError: there is none, and nothing was sent.
        """
        up = asyncio.ensure_future(self._upwards(receive))
        down = asyncio.ensure_future(self._downwards(send))
        until = [] if closed is None else [asyncio.ensure_future(closed)]
        tasks: list[asyncio.Future[Any]] = [up, down, *until]
        try:
            return await self._watch(up, down, until)
        except ChutesError:
            if self._begun:
                return False
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(
        self,
        up: "asyncio.Future[None]",
        down: "asyncio.Future[None]",
        until: "Sequence[asyncio.Future[object]]",
    ) -> bool:
        over_at = self._now() + self._limits.request_s
        waiting: set[asyncio.Future[Any]] = {up, down, *until}
        while True:
            left_s = min(over_at, self._moved_at + self._limits.silence_s) - self._now()
            if left_s <= 0:
                raise TimedOut(
                    "port_timeout",
                    "the job's server gave no answer in time",
                    hint="send a first byte sooner, or use `chutes jobs forward`",
                )
            done, _ = await asyncio.wait(
                waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if down in done:
                down.result()
                return True
            if up in done:
                waiting.discard(up)
                up.result()  # raises, or the caller has left
                return False
            if done:
                raise _cut()

    async def _upwards(self, receive: Receive) -> None:
        """Send the request; then return when the caller leaves.

        A job's server may answer before it has read all, and close: what cannot be sent any more is
        dropped, and whether there is an answer is for the other direction to say.
        """
        http = self._http
        await self._put(http.send(self._request))
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            self._moved_at = self._now()
            more = message.get("more_body", False)
            if data := message.get("body", b""):
                size += len(data)
                self._check_size(size)
                await self._say(h11.Data(data=data))
        await self._say(h11.EndOfMessage())
        while (await receive())["type"] == "http.request":
            continue

    def _check_size(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise TooLarge(
                "body_too_large", f"a request body has at most {self._limits.body_bytes} bytes"
            )

    async def _say(self, event: "h11.Data | h11.EndOfMessage") -> None:
        """Send a part of the body, as far as it was announced.

        Raises:
            Invalid: ``bad_port_request``: not the length that was announced, or any where none was.
        """
        if self._http.our_state is h11.MUST_CLOSE or self._http.our_state is h11.ERROR:
            return  # the answer is out; nobody reads the rest
        try:
            data = self._http.send(event)
        except h11.LocalProtocolError as error:
            raise Invalid(
                "bad_port_request", f"the body cannot be passed on: {error}", hint="name its length"
            ) from error
        await self._put(data)

    async def _put(self, data: bytes | None) -> None:
        if data and not self._deaf:
            try:
                await self._end.send(data)
            except ChutesError:
                self._deaf = True
            self._moved_at = self._now()

    async def _downwards(self, send: Send) -> None:
        """Pass the answer on, to its end."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                headers = _answer_headers(event)
                self._begun = True
                start = {"type": "http.response.start", "status": event.status_code}
                await send({**start, "headers": headers})
            elif isinstance(event, h11.Data):
                body = bytes(event.data)
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self._moved_at = self._now()
            elif isinstance(event, h11.EndOfMessage):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            elif not isinstance(event, h11.InformationalResponse):
                raise _cut()

    async def _next(self) -> object:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise (_cut() if self._ended else _bad_answer(str(error))) from error
            if event is not h11.NEED_DATA:
                return event
            data = await self._end.receive()
            self._moved_at = self._now()
            self._ended = data is None
            self._http.receive_data(data or b"")


def _answer_headers(answer: h11.Response) -> list[RawHeader]:
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
    if any(name == "transfer-encoding" for name, _ in pairs):
        pairs = [(name, value) for name, value in pairs if name != "content-length"]
    if sum(len(name) + len(value) for name, value in pairs) > MAX_HEAD_BYTES:
        raise _bad_answer(f"its headers are over {MAX_HEAD_BYTES} bytes")
    headers = to_caller(pairs)
    # Strangers' pages on the validator's own address: no script of theirs acts as of this address.
    return [
        *(pair for pair in headers if pair[0] != b"content-security-policy"),
        (b"content-security-policy", b"sandbox"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _bad_answer(why: str) -> ProtocolError:
    return ProtocolError(
        "bad_job_answer",
        f"the job's server answered with what cannot be passed on: {why}",
        hint="is its port's proto http? `chutes jobs forward` carries any protocol",
    )


def _cut() -> ProtocolError:
    return ProtocolError(
        "job_answer_cut",
        "the connection to the job's server ended before its answer did",
        hint="its output says why",
    )
