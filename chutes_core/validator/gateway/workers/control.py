"""The control plane as a worker reaches it: ASGI, one message at a time, over the channel.

Path: worker's front -> `RemoteControl` -> channel -> `ControlStreams` -> the control plane. The
application's `receive` becomes WANT and GOT, its `send` PUT and DONE; so back-pressure, `Expect`
and a caller who leaves reach it as in one process. Invariant: a stream ends on both sides once:
with OVER, or with the channel.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from loguru import logger

from chutes_core.base.errors import Unavailable
from chutes_core.validator.gateway.asgi import AsgiApp, Message, Receive, Scope, Send
from chutes_core.validator.gateway.workers.channel import Channel, Kind

PIECE_BYTES = 128 * 1024
_CLIENT, _SERVER, _HEADERS = "client", "server", "headers"
_BYTES_OF_SCOPE = ("raw_path", "query_string")
_NOT_SENT = ("state", "app")


@dataclass(eq=False)
class _Asked:
    """A request that the main process answers: its caller, and what is sent to them next."""

    receive: Receive
    frames: "asyncio.Queue[tuple[Kind, Mapping[str, Any], bytes]]" = field(
        default_factory=asyncio.Queue
    )
    receiving: "asyncio.Future[None] | None" = None


class RemoteControl:
    """The control plane as an ASGI application in a worker."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._numbers = count(1)
        self._streams: dict[int, _Asked] = {}

    def use(self, channel: Channel) -> None:
        """Send over this channel."""
        self._channel = channel

    def took(self, kind: Kind, stream: int, head: Mapping[str, Any], data: bytes) -> None:
        """Take a frame of a stream; one of a stream that is over is dropped.

        WANT is answered beside what is being sent: a caller who takes nothing still may send.
        """
        asked, channel = self._streams.get(stream), self._channel
        if asked is None or channel is None:
            return
        if kind is Kind.WANT:
            asked.receiving = asyncio.ensure_future(_got(channel, stream, asked.receive))
        else:
            asked.frames.put_nowait((kind, head, data))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the main process answer a request."""
        channel = self._channel
        assert channel is not None, "no request comes before the worker serves"
        stream = next(self._numbers)
        asked = self._streams[stream] = _Asked(receive)
        channel.send(Kind.OPEN, _scope_out(scope), stream=stream)
        try:
            while True:
                kind, head, data = await asked.frames.get()
                if kind is Kind.OVER:
                    return
                await send(_message_in(head, data))
                channel.send(Kind.DONE, {}, stream=stream)
        finally:
            del self._streams[stream]
            channel.send(Kind.OVER, {}, stream=stream)
            if asked.receiving is not None:
                asked.receiving.cancel()


async def _got(channel: Channel, stream: int, receive: Receive) -> None:
    head, data = _message_out(await receive())
    channel.send(Kind.GOT, head, data, stream=stream)


class ControlStreams:
    """The requests of one worker that the control plane answers, in the main process."""

    def __init__(self, app: AsgiApp, channel: Channel) -> None:
        self._app = app
        self._channel = channel
        self._streams: dict[int, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def took(self, kind: Kind, stream: int, head: Mapping[str, Any], data: bytes) -> None:
        """Take a frame of a stream."""
        if kind is Kind.OPEN:
            self._streams[stream] = opened = _Stream(self._channel, stream)
            task = asyncio.get_running_loop().create_task(self._run(opened, _scope_in(head)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif (known := self._streams.get(stream)) is not None:
            known.took(kind, head, data)

    def lost(self) -> None:
        """End all streams: the worker is gone, and so are its callers."""
        for stream in self._streams.values():
            stream.end()

    async def close(self) -> None:
        """Cut what still runs."""
        self.lost()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, stream: "_Stream", scope: Scope) -> None:
        try:
            await self._app(scope, stream.receive, stream.send)
        except Exception:  # noqa: BLE001 - the edge: an application's failure ends one answer only
            logger.exception("A request failed unexpectedly")
            if not stream.begun:
                with contextlib.suppress(Unavailable):
                    await stream.fail()
        finally:
            self._streams.pop(stream.number, None)
            self._channel.send(Kind.OVER, {}, stream=stream.number)


class _Stream:
    """One request; ``begun`` once a part of an answer was sent."""

    def __init__(self, channel: Channel, number: int) -> None:
        self.number = number
        self.begun = False
        self._channel = channel
        self._over = False
        self._got: asyncio.Future[Message] | None = None
        self._left: asyncio.Future[None] | None = None

    def took(self, kind: Kind, head: Mapping[str, Any], data: bytes) -> None:
        if kind is Kind.OVER:
            self.end()
        elif kind is Kind.GOT and self._got is not None and not self._got.done():
            self._got.set_result(_message_in(head, data))
        elif kind is Kind.DONE and self._left is not None and not self._left.done():
            self._left.set_result(None)

    def end(self) -> None:
        """The caller is gone."""
        self._over = True
        if self._got is not None and not self._got.done():
            self._got.set_result({"type": "http.disconnect"})
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    async def receive(self) -> Message:
        """Ask the worker for the next message; one that was asked for before is waited for."""
        if self._over:
            return {"type": "http.disconnect"}
        if self._got is None:
            self._got = asyncio.get_running_loop().create_future()
            self._channel.send(Kind.WANT, {}, stream=self.number)
        message = await asyncio.shield(self._got)
        self._got = None
        return message

    async def send(self, message: Message) -> None:
        """Have the worker send a message, and wait until it has."""
        for head, data in _pieces(message):
            if self._over:
                return
            self.begun = True
            self._left = asyncio.get_running_loop().create_future()
            self._channel.send(Kind.PUT, head, data, stream=self.number)
            await self._left

    async def fail(self) -> None:
        """Answer that the application failed."""
        body = b"Internal Server Error"
        length = (b"content-length", str(len(body)).encode())
        headers = [length, (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _pieces(message: Message) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield a message in frames; a large piece of a body is cut."""
    head, data = _message_out(message)
    while len(data) > PIECE_BYTES and message["type"] == "http.response.body":
        yield head | {"more_body": True}, data[:PIECE_BYTES]
        data = data[PIECE_BYTES:]
    yield head, data


def _message_out(message: Message) -> tuple[dict[str, Any], bytes]:
    head = dict(message)
    data = head.pop("body", b"") or b""
    if _HEADERS in head:
        head[_HEADERS] = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in head[_HEADERS]]
    return head, bytes(data)


def _message_in(head: Mapping[str, Any], data: bytes) -> Message:
    message = dict(head)
    if _HEADERS in message:
        message[_HEADERS] = _pairs(message[_HEADERS])
    if message["type"].endswith((".body", "http.request")):
        message["body"] = data
    return message


def _scope_out(scope: Scope) -> dict[str, Any]:
    head = {key: value for key, value in scope.items() if key not in _NOT_SENT}
    head[_HEADERS] = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope[_HEADERS]]
    for name in _BYTES_OF_SCOPE:
        head[name] = (scope.get(name) or b"").decode("latin-1")
    return head


def _scope_in(head: Mapping[str, Any]) -> Scope:
    scope = dict(head) | {"state": {}}
    scope[_HEADERS] = _pairs(head[_HEADERS])
    for name in _BYTES_OF_SCOPE:
        scope[name] = head[name].encode("latin-1")
    for name in (_CLIENT, _SERVER):
        if scope.get(name) is not None:
            scope[name] = tuple(scope[name])
    return scope


def _pairs(headers: list[list[str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
