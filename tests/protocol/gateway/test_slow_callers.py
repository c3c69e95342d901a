"""Callers who take nothing, send nothing or have half gone: none holds a place for ever."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.plane import http
from chutes_core.validator.gateway.plane.server import Plane
from chutes_core.wire.http_server import HttpLimits

PATIENCE_S = 60.0
LARGE = 32 * 1024 * 1024  # more than the sockets' buffers take


class Control:
    """A control plane whose answers are large, endless, or wait for a body."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.begun: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, scope, receive, send) -> None:
        path = scope["path"]
        self.begun.put_nowait(path)
        try:
            await self._answer(path, receive, send)
        finally:
            self.ended.put_nowait(path)

    async def _answer(self, path, receive, send) -> None:
        if path == "/body":
            while (message := await receive()).get("more_body"):
                continue
            if message["type"] == "http.disconnect":
                return
        length = [(b"content-length", str(LARGE).encode())] if path == "/large" else []
        await send({"type": "http.response.start", "status": 200, "headers": length})
        if path == "/endless":
            while not self._left(receive):
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        body = bytes(LARGE) if path == "/large" else b"done"
        await send({"type": "http.response.body", "body": body})

    def _left(self, receive) -> bool:
        step = receive()
        try:
            step.send(None)
        except StopIteration as stop:
            return stop.value["type"] == "http.disconnect"
        step.close()
        return False


@asynccontextmanager
async def served(folder: Path, **more: object) -> AsyncIterator[tuple[Control, Plane, int]]:
    control = Control()
    journal = Journal(folder / "journal", "w1")
    gateway = Gateway(control=control, journal=journal)
    fast = gateway.plane(grace_s=0)._fast
    limits = more.pop("limits", HttpLimits(max_per_address=None))
    plane = Plane(gateway.front, fast, limits, grace_s=0, shortest_s=0.1, **more)  # type: ignore[arg-type]
    door = socket.create_server(("127.0.0.1", 0))
    task = asyncio.ensure_future(plane.serve([door]))
    try:
        yield control, plane, door.getsockname()[1]
    finally:
        plane.should_exit = True
        await asyncio.wait_for(task, PATIENCE_S)
        door.close()
        journal.close()


async def until_empty(plane: Plane) -> None:
    async def empty() -> None:
        # looked at again and again, for nothing tells when the last has gone
        while plane.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    await asyncio.wait_for(empty(), PATIENCE_S)


@pytest.mark.parametrize("keep", [True, False])
async def test_a_caller_who_reads_nothing_of_a_whole_answer_is_cut(tmp_path, monkeypatch, keep):
    """Its place is free after a while, whether the connection was to be kept or closed."""
    monkeypatch.setattr(http, "UNREAD_S", 0.1)
    limits = HttpLimits(max_per_address=None, keep_alive_s=1)
    async with served(tmp_path, limits=limits) as (control, plane, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.transport.pause_reading()
        close = b"" if keep else b"Connection: close\r\n"
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n" + close + b"\r\n")
        assert await asyncio.wait_for(control.ended.get(), PATIENCE_S) == "/large"
        await until_empty(plane)
        writer.close()


class Draining:
    """A transport that is told how much of what was written has not left yet."""

    def __init__(self, *left: int) -> None:
        self.left = list(left)
        self.aborted = self.closed = False

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    def get_write_buffer_size(self) -> int:
        return self.left.pop(0)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


async def test_a_caller_who_reads_slowly_gets_the_whole_answer(tmp_path):
    """A closing connection stays while less and less is left, and is cut once that stops."""
    async with served(tmp_path) as (_, plane, _):
        connection = http.Connection(plane)
        transport = Draining(900, 500, 100, 100)
        connection.connection_made(transport)  # type: ignore[arg-type]
        connection.overdue(plane.now())  # nothing was asked: it is closed
        assert transport.closed
        for _ in range(2):
            connection.overdue(plane.now())
            assert not transport.aborted
            assert connection.deadline > plane.now()
        connection.overdue(plane.now())
        assert transport.aborted
        connection.connection_lost(None)


async def test_an_endless_answer_to_a_caller_who_reads_nothing_ends(tmp_path):
    """The control plane's stream is told that its caller has left."""
    async with served(tmp_path, unread_s=0.2) as (control, plane, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.transport.pause_reading()
        writer.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.wait_for(control.ended.get(), PATIENCE_S) == "/endless"
        await until_empty(plane)
        writer.close()


async def test_a_body_that_stops_coming_ends(tmp_path):
    """The control plane waits for a piece of a body only so long."""
    async with served(tmp_path, body_timeout_s=0.2) as (control, plane, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\nhalf")
        assert await asyncio.wait_for(control.ended.get(), PATIENCE_S) == "/body"
        await until_empty(plane)
        writer.close()


@pytest.mark.parametrize("length", [4000, 200_000])
async def test_half_a_request_of_a_half_closed_caller_holds_no_place(tmp_path, length):
    """The one before it is answered, and the connection ends: its rest can never come."""
    async with served(tmp_path) as (control, plane, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        first = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n"
        second = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nhalf" % length
        writer.write(first + second)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert answer.count(b"HTTP/1.1 ") == 1
        await until_empty(plane)
        assert control.begun.qsize() == control.ended.qsize()
        writer.close()
