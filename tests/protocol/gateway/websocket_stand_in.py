"""A gateway on its data plane before the runner's own executor, and a real websocket server behind.

What is a stand-in here: the relay, the proof, and the chute around its server.
"""

import asyncio
import base64
import hashlib
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import httpx
from gateway_stand_in import DOMAIN, House, Instance, World, cord
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import ChutesError
from chutes_core.runner.chute_loop import ChuteLoop
from chutes_core.runner.executor import Executor, Service
from chutes_core.runner.link import Link
from chutes_core.runner.passthrough import Passthrough
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.snapshot import ChuteView
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.gateway.plane.server import Plane
from chutes_core.wire.connection import accept, read_preamble
from chutes_core.wire.frames import FrameKind

PATIENCE_S = 90.0
TALK = replace(cord("/talk", method="GET"), passthrough=True)
PLACE = "/c/bob-echo/api/talk"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Talk = Callable[[ServerConnection], Awaitable[None]]


NO_LOOP = cast(ChuteLoop, None)  # a websocket never gets there


async def no_app(scope: object, receive: object, send: object) -> None:
    raise AssertionError("a websocket is none of the chute's ASGI application's business")


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


class Ran(Instance):
    """An instance that serves calls by the runner's executor."""

    def __init__(self, *ways: tuple[str, Passthrough], concurrency: int = 8) -> None:
        super().__init__(no_handler)
        self.executor = Executor(NO_LOOP, SystemClock())
        self.executor.serve(Service(no_app, concurrency, dict(ways)))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._mine(writer)
        self.connections += 1
        link: Link | None = None
        try:
            preamble = await read_preamble(reader, 5)
            link = Link(accept(reader, writer, preamble, root=self.root), PATIENCE_S)
            while (frame := await link.next_frame()) is not None:
                assert frame.kind is FrameKind.CALL
                if not await self.executor.run(link, frame):
                    break
            await link.close()
        except (ChutesError, OSError, asyncio.CancelledError):
            pass  # the end of a connection, or of the test
        finally:
            self._open.discard(writer)
            writer.transport.abort()


async def no_handler(call: object) -> None:
    raise AssertionError("the executor takes calls")


@asynccontextmanager
async def speaking(talk: Talk, **options: object) -> AsyncIterator[Passthrough]:
    """Run a real websocket server; yields where it is."""
    async with serve(talk, "127.0.0.1", 0, **options) as server:  # type: ignore[arg-type]
        yield Passthrough(server.sockets[0].getsockname()[1], "/spoken", {"X-Chute": "own"})


@asynccontextmanager
async def instance_of(talk: Talk, concurrency: int = 8, **options: object) -> AsyncIterator[Ran]:
    async with speaking(talk, **options) as way:
        one = Ran(("/api/talk", way), concurrency=concurrency)
        await one.listen()
        try:
            yield one
        finally:
            await one.close()


@asynccontextmanager
async def raw_instance(size: int) -> AsyncIterator[Ran]:
    """An instance before a server that answers with each byte behind the handshake, up to so many.

    Then it closes.
    """

    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        nonce = head.partition("sec-websocket-key: ")[2].partition("\r\n")[0]
        assert nonce == NONCE.lower()
        writer.write(switching())
        left = size
        while left and (data := await reader.read(65536)):
            writer.write(data)
            await writer.drain()
            left -= len(data)
        writer.close()

    async with await asyncio.start_server(mirror, "127.0.0.1", 0) as server:
        one = Ran(("/api/talk", Passthrough(server.sockets[0].getsockname()[1], "/raw")))
        await one.listen()
        try:
            yield one
        finally:
            await one.close()


def with_talk(world: World, chute: ChuteView) -> ChuteView:
    """Give a chute a cord that carries websockets."""
    world.chutes[chute.chute_id] = replace(chute, cords=(*chute.cords, TALK))
    return world.chutes[chute.chute_id]


@dataclass
class SocketHouse(House):
    """A `House` whose chute has a passthrough cord at /api/talk."""

    server: Plane = None  # type: ignore[assignment] # set once it is made

    def connect(self, path: str = PLACE, *, host: str = "x.test", **options: object) -> connect:
        """Return a websocket client's connection to the gateway, which is called ``host``."""
        options.setdefault("additional_headers", self.auth)
        scheme = "wss" if "ssl" in options else "ws"
        return connect(
            f"{scheme}://{host}{path}",
            host="127.0.0.1",
            port=self.port,
            proxy=None,
            open_timeout=PATIENCE_S,
            close_timeout=PATIENCE_S,
            **options,
        )

    def change(self, **fields: object) -> None:
        """Give the chute other fields."""
        chute_id = self.chute.chute_id
        self.world.chutes[chute_id] = replace(self.world.chutes[chute_id], **fields)  # type: ignore[arg-type]
        self.swap()

    async def recorded(self) -> list[Invocation]:
        await self.quiet()
        return list(self.journal.pending(0, 100))

    async def raw(self, head: bytes, behind: bytes = b"") -> bytes:
        """Send bytes and return all that comes until the gateway closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(head + behind)
            return await asyncio.wait_for(reader.read(), PATIENCE_S)
        finally:
            writer.transport.abort()


@asynccontextmanager
async def socket_house(
    folder: Path, limits: GatewayLimits | None = None, *, grace_s: float = 0.0, **options: object
) -> AsyncIterator[SocketHouse]:
    async def control(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"control " + scope["path"].encode()})

    journal = Journal(folder / "journal", "w1")
    gateway = Gateway(
        control=control,
        journal=journal,
        limits=limits or GatewayLimits(cold_wait_s=0.0, key_burst=10**6),
        domain=DOMAIN,
        rng=random.Random(1),
    )
    world = World()
    owner_id = world.user(spendable_rao=10**15)
    chute = with_talk(world, world.chute(owner_id))
    key = world.key(owner_id)
    listener = socket.create_server(("127.0.0.1", 0))
    server = gateway.plane(grace_s=grace_s, **options)  # type: ignore[arg-type]
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    port = listener.getsockname()[1]
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=90) as client:
            made = SocketHouse(world, gateway, journal, client, owner_id, key, chute, port)
            made.server = server
            made.swap()
            yield made
        await made.quiet()
        assert gateway.stats()["slots"] == 0
    finally:
        server.should_exit = True
        await serving
        listener.close()
        await gateway.close()
        journal.close()


def handshake(key: str, *, path: str = PLACE, drop: str = "", more: tuple[str, ...] = ()) -> bytes:
    """Return a handshake's bytes; lines that begin with ``drop`` are left out."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: x",
        f"X-Api-Key: {key}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {NONCE}",
    ]
    kept = [line for line in lines if not drop or not line.lower().startswith(drop.lower())]
    return "\r\n".join([*kept, *more, "", ""]).encode()


NONCE = base64.b64encode(bytes(range(16))).decode()


def accept_of(nonce: str) -> str:
    digest = hashlib.sha1(nonce.encode() + GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def switching() -> bytes:
    """Return a server's answer to `handshake`."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept_of(NONCE)}", "", ""]).encode()


def masked(payload: bytes, opcode: int = 2) -> bytes:
    """Return a client's frame (RFC 6455, 5.2) of at most 125 bytes."""
    mask = os.urandom(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + body
