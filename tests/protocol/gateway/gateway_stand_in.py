"""A fake instance behind a plain relay, and a real uvicorn server around a gateway."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx
import uvicorn

from chutes_core.base.errors import ChutesError
from chutes_core.base.ids import new_id
from chutes_core.validator.domain.accounts import ApiKey, Scope
from chutes_core.validator.domain.chutes import Cord
from chutes_core.validator.domain.keytext import format_key, hash_secret
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import (
    AliasView,
    ChuteView,
    InstanceView,
    PayerView,
    Snapshot,
    own_alias,
)
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal
from chutes_core.wire.call import CallEnd, CallHead, ResponseHead
from chutes_core.wire.connection import SealedConnection, accept, read_preamble
from chutes_core.wire.frames import FrameKind
from chutes_core.wire.launch import FrameError
from chutes_core.wire.sealing import PROVEN, Preamble

DOMAIN = "chutes.test"


@dataclass
class Incoming:
    """A call as the instance got it, and the ways to answer."""

    connection: SealedConnection
    head: CallHead
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.head.headers)

    async def start(self, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> None:
        head = ResponseHead(status=status, headers=headers)
        await self.connection.send(FrameKind.RESPONSE, head.model_dump_json().encode())

    async def chunk(self, data: bytes) -> None:
        await self.connection.send(FrameKind.BODY, data)

    async def end(self) -> None:
        await self.connection.send(FrameKind.END, CallEnd(busy_us=1).model_dump_json().encode())

    async def answer(
        self,
        body: bytes = b"ok",
        status: int = 200,
        headers: tuple[tuple[str, str], ...] = (("content-type", "text/plain"),),
    ) -> None:
        await self.start(status, (*headers, ("content-length", str(len(body)))))
        if body:
            await self.chunk(body)
        await self.end()

    async def error(self, code: str) -> None:
        said = FrameError(code=code, message="no")
        await self.connection.send(FrameKind.ERROR, said.model_dump_json().encode())

    async def until_left(self) -> None:
        """Return when the gateway has closed the connection."""
        try:
            await self.connection.receive()
        except ChutesError:
            return


Handler = Callable[[Incoming], Awaitable[None]]


class Instance:
    """Serves calls by `handler`; `calls` keeps what came, `connections` counts them."""

    def __init__(self, handler: Handler, *, launch_id: str | None = None) -> None:
        self.handler = handler
        self.launch_id = launch_id or new_id()
        self.root = secrets.token_bytes(32)
        self.ticket = secrets.token_bytes(32)
        self.calls: list[Incoming] = []
        self.connections = 0
        self.preambles: list[Preamble] = []
        self.refuses_at_once = False  # answers a CALL without reading its body
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []
        self.port = 0

    async def listen(self, *, relayed: bool = True) -> None:
        inner = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._inner_port = inner.sockets[0].getsockname()[1]
        self._servers, self.port = [inner], self._inner_port
        if not relayed:
            return
        outer = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = outer.sockets[0].getsockname()[1]
        self._servers = [inner, outer]

    def view(self, chute_id: str, concurrency: int = 8) -> InstanceView:
        return InstanceView(
            self.launch_id, chute_id, "127.0.0.1", self.port, self.ticket, self.root, concurrency
        )

    def cut_all(self) -> None:
        """Die: every connection ends."""
        for writer in tuple(self._open):
            writer.transport.abort()

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        self.cut_all()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._mine(writer)
        try:
            preamble = await read_preamble(reader, 5)
            assert preamble.is_from(self.ticket)
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", self._inner_port)
            onward.write(preamble.to_bytes())
            await asyncio.gather(_pump(reader, onward), _pump(onward_reader, writer))
        except (ChutesError, OSError, asyncio.CancelledError):
            pass  # the end of a connection, or of the test
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._mine(writer)
        self.connections += 1
        try:
            preamble: Preamble = await read_preamble(reader, 5)
            self.preambles.append(preamble)
            assert preamble.generation == PROVEN
            connection = accept(reader, writer, preamble, root=self.root)
            while True:
                if self.refuses_at_once:
                    await Incoming(connection, await _next_head(connection), b"").error("draining")
                    await asyncio.Event().wait()
                incoming = await _next_call(connection)
                self.calls.append(incoming)
                await self.handler(incoming)
        except (ChutesError, OSError, asyncio.CancelledError):
            pass  # the end of a connection, or of the test
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    def _mine(self, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.transport.abort()


async def _next_head(connection: SealedConnection) -> CallHead:
    return CallHead.model_validate_json((await connection.receive()).payload)


async def _next_call(connection: SealedConnection) -> Incoming:
    head = await _next_head(connection)
    if head.upgrade is not None:
        return Incoming(connection, head, b"")
    body = bytearray()
    while (frame := await connection.receive()).kind is FrameKind.BODY:
        body += frame.payload
    return Incoming(connection, head, bytes(body))


def cord(path: str, *, method: str = "POST", stream: bool = False) -> Cord:
    return Cord(
        function=path.strip("/"),
        path=path,
        method="POST",
        public_api_path=f"/api{path}",
        public_api_method=method,
        stream=stream,
    )


CORDS = (
    cord("/echo"),
    cord("/look", method="GET"),
    replace(cord("/chat"), public_api_path="/v1/chat/completions"),
)


@dataclass
class World:
    """Accounts, keys and chutes of a test; `snapshot` makes the picture."""

    keys: dict[str, ApiKey] = field(default_factory=dict)
    payers: dict[str, PayerView] = field(default_factory=dict)
    chutes: dict[str, ChuteView] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, AliasView] = field(default_factory=dict)
    instances: dict[str, tuple[InstanceView, ...]] = field(default_factory=dict)
    drained: dict[str, int] = field(default_factory=dict)

    def user(self, *, spendable_rao: int = 10**9, free: bool = False) -> str:
        user_id = new_id()
        self.payers[user_id] = PayerView(user_id, "5Cold", spendable_rao, free)
        return user_id

    def key(self, user_id: str, *, admin: bool = True, scopes: tuple[Scope, ...] = ()) -> str:
        key_id, secret = new_id(), secrets.token_hex(16)
        hashed = hash_secret(secret)
        self.keys[hashed] = ApiKey(key_id, user_id, "k", hashed, admin, scopes, 0)
        return format_key(key_id, user_id, secret)

    def chute(
        self,
        owner_id: str,
        slug: str = "bob-echo",
        *,
        public: bool = False,
        shared_with: frozenset[str] = frozenset(),
        rate: Rate | None = None,
    ) -> ChuteView:
        chute = ChuteView(
            chute_id=new_id(),
            slug=slug,
            name=slug,
            owner_id=owner_id,
            public=public,
            shared_with=shared_with,
            cords=CORDS,
            rate=rate or Rate("rate-1", 3_600_000_000, 60_000_000),
            concurrency=8,
            standard_template=None,
            cold_reason="no GPU is free",
        )
        self.chutes[chute.chute_id] = chute
        self.models[f"model/{slug}"] = chute.chute_id
        return chute

    def alias(self, owner_id: str, name: str, *chutes: ChuteView) -> None:
        """Name chutes as bob's alias, in their order."""
        view = AliasView(owner_id, name, tuple(chute.chute_id for chute in chutes))
        for text in (f"bob-{name}", f"bob/{name}", own_alias(owner_id, name)):
            self.aliases[text] = view

    def snapshot(self) -> Snapshot:
        return Snapshot(
            keys=dict(self.keys),
            payers=dict(self.payers),
            chutes=dict(self.chutes),
            slugs={chute.slug: chute_id for chute_id, chute in self.chutes.items()},
            models=dict(self.models),
            aliases=dict(self.aliases),
            instances=dict(self.instances),
            drained=dict(self.drained),
        )


@dataclass
class House:
    """A gateway behind uvicorn, its world and its journal, and a client."""

    world: World
    gateway: Gateway
    journal: Journal
    client: httpx.AsyncClient
    owner_id: str
    key: str
    chute: ChuteView
    port: int

    def swap(self) -> None:
        self.gateway.swap(self.world.snapshot())

    def serve(self, *instances: Instance, concurrency: int = 8) -> None:
        chute_id = self.chute.chute_id
        self.world.instances[chute_id] = tuple(i.view(chute_id, concurrency) for i in instances)
        self.swap()

    @property
    def auth(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    async def post(self, path: str = "/c/bob-echo/api/echo", **more: object) -> httpx.Response:
        more.setdefault("headers", self.auth)
        return await self.client.post(path, **more)  # type: ignore[arg-type]

    async def quiet(self) -> None:
        """Wait until no call runs any more."""
        await asyncio.wait_for(self.gateway.quiet(), 60)

    def queueing(self) -> asyncio.Semaphore:
        """Return a semaphore that is released for each caller who begins to wait."""
        begun = asyncio.Semaphore(0)
        queue = self.gateway._queue
        wait = queue.wait

        async def watched(chute_id: str, timeout_s: float) -> bool:
            waiting = asyncio.ensure_future(wait(chute_id, timeout_s))
            asyncio.get_running_loop().call_soon(begun.release)  # after its first step
            try:
                return await waiting
            finally:
                waiting.cancel()

        queue.wait = watched  # type: ignore[method-assign]
        return begun


@asynccontextmanager
async def planed(gateway: Gateway, **options: object) -> AsyncIterator[int]:
    """Serve a gateway by its data plane in this loop; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = gateway.plane(grace_s=0.0, **options)  # type: ignore[arg-type]
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def serving(app: object) -> AsyncIterator[int]:
    """Run an ASGI application on uvicorn in this loop; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        log_level=os.environ.get("TEST_LOG", "critical"),
        lifespan="off",
        ws="none",
        proxy_headers=False,
    )  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        server.force_exit = True
        await task
        listener.close()
