"""Byte streams of the public port: who asks for one gets one, and nothing else changes.

The application is the test's; tests/protocol/runner/test_runner_ports.py has the real one.
"""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from chutes_core.validator.gateway.plane.http import BUFFERED_BYTES
from chutes_core.validator.gateway.plane.server import Plane

PATIENCE_S = 60.0
HEAD = b"GET /%b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: chutes-stream\r\n\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chutes-stream\r\n\r\n"
)


class NoFast:
    def begin(self, connection, request):
        return False

    def is_call(self, request):
        return False


class App:
    """Echoes a stream; ``go_on`` set lets it read, ``left`` tells that its caller has gone."""

    def __init__(self):
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.left = asyncio.Event()
        self.scopes = []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        asked = await receive()
        assert not asked.get("more_body")
        if "chutes.stream" not in scope.get("extensions", {}) or scope["path"] == "/refused":
            headers = [(b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 404, "headers": headers})
            await send({"type": "http.response.body", "body": b"no"})
            return
        assert asked["body"] == b""
        await send({"type": "http.response.start", "status": 101, "headers": []})
        while True:
            await self.go_on.wait()
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                return
            data = message["body"]
            if data.endswith(b"."):
                await send({"type": "http.response.body", "body": data})
                return
            await send({"type": "http.response.body", "body": data, "more_body": True})


@asynccontextmanager
async def served(app):
    door = socket.create_server(("127.0.0.1", 0))
    plane = Plane(app, NoFast(), grace_s=0.0)
    task = asyncio.ensure_future(plane.serve([door]))
    try:
        yield plane, door.getsockname()[1]
    finally:
        plane.should_exit = True
        await task


@asynccontextmanager
async def caller(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read(reader, size):
    return await asyncio.wait_for(reader.readexactly(size), PATIENCE_S)


@pytest.mark.parametrize("early", [b"", b"with the head "])
async def test_a_stream_is_bytes_both_ways_after_its_101(early):
    """What came with the head is the stream's beginning; the application's end ends it."""
    async with served(App()) as (_, port), caller(port) as (reader, writer):
        writer.write(HEAD % b"s" + early)
        assert await read(reader, len(SWITCHED)) == SWITCHED
        assert await read(reader, len(early)) == early
        odd = b"GET / HTTP/1.1\r\n\r\n0\r\n\r\n\0\xff"
        writer.write(odd)
        assert await read(reader, len(odd)) == odd
        writer.write(b"end.")
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b"end."


@pytest.mark.parametrize(
    "head",
    [
        HEAD % b"refused",
        (HEAD % b"s").replace(b"GET", b"POST"),
        (HEAD % b"s").replace(b"Host: x", b"Host: x\r\nContent-Length: 0"),
        (HEAD % b"s").replace(b"chutes-stream", b"h2c"),
        (HEAD % b"s").replace(b"Connection: Upgrade", b"Connection: close"),
        (HEAD % b"s").replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_who_gets_no_stream_gets_an_answer_and_no_second_one(head):
    """What follows such a request is no HTTP, and is nobody's."""
    app = App()
    async with served(app) as (_, port), caller(port) as (reader, writer):
        second = b"" if b"HTTP/1.0" in head or b"close" in head else HEAD % b"second"
        writer.write(head + second)
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert answer.count(b"HTTP/1.1") == 1
        assert len(app.scopes) == 1


async def test_a_caller_who_closes_or_goes_is_gone():
    """A half-close too: the end of a direction is said within the stream."""
    for cut in (True, False):
        app = App()
        async with served(app) as (_, port), caller(port) as (reader, writer):
            writer.write(HEAD % b"s")
            await read(reader, len(SWITCHED))
            if cut:
                writer.transport.abort()
            else:
                writer.write_eof()
            await asyncio.wait_for(app.left.wait(), PATIENCE_S)


async def test_a_stream_that_nobody_reads_is_read_no_further():
    """What waits is bounded, and all of it arrives once the application goes on."""
    app = App()
    app.go_on.clear()
    async with served(app) as (plane, port), caller(port) as (reader, writer):
        writer.write(HEAD % b"s")
        await read(reader, len(SWITCHED))
        (connection,) = plane.connections
        paused = asyncio.Event()
        pause = connection.transport.pause_reading

        def pausing():
            pause()
            paused.set()

        stand_in = Transport(connection.transport, pausing)
        connection.transport = stand_in
        sent = bytes(5_000_000) + b"."
        writer.write(sent)
        await asyncio.wait_for(paused.wait(), PATIENCE_S)
        assert BUFFERED_BYTES < connection._current.size <= BUFFERED_BYTES + 256 * 1024
        app.go_on.set()
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == sent


class Transport:
    """A transport that tells of its pauses."""

    def __init__(self, transport, pausing):
        self._transport = transport
        self.pause_reading = pausing

    def __getattr__(self, name):
        return getattr(self._transport, name)
