"""Children of the gateway's benchmark: one origin that speaks sealed frames and plain HTTP, and the
contenders that stand in front of it. Each prints one JSON line (what the parent must know), then
serves until it is killed.

    origin | gateway PLACE | reference PLACE | fastapi PLACE | cold PLACE

PLACE is the origin's JSON line. The origin answers with BODY, and where the path ends in /stream
with server-sent events: `x-count` chunks, one each `x-every-us` (0: as fast as they go), each with
the monotonic time at which it left; at OpenAI-style routes both in that form, of as many bytes. As
an instance it does as the runner does: what is ready at once, at most WINDOW chunks, is one frame.
In HTTP it writes each chunk by itself, as ASGI servers do; with `x-joined` as many in one write.
`cold` is a gateway whose chute has the origin as its instance only after the line `up` on standard
input, and none after `down`; both are answered with the moment, `waiting` with who waits.
"""

import asyncio
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path

import uvloop

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/protocol/gateway")]

from chutes_core.base.ids import new_id  # noqa: E402
from chutes_core.runner.exchange import WINDOW  # noqa: E402
from chutes_core.wire.frames import FrameCodec, FrameKind  # noqa: E402
from chutes_core.wire.sealing import PREAMBLE_BYTES, ConnectionKeys, Preamble  # noqa: E402

BODY = json.dumps({"data": [{"embedding": [0.125] * 168}]}).encode()  # about 1 KB
EMBEDDED = {
    "object": "list",
    "model": "bench",
    "usage": {"prompt_tokens": 9, "total_tokens": 9},
    "data": [{"object": "embedding", "index": 0, "embedding": [0.125] * 148}],
}
HEADERS = (("content-type", "application/json"), ("content-length", str(len(BODY))))
SSE = (("content-type", "text/event-stream"),)
CHATS, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
DONE = b"e\r\ndata: [DONE]\n\n\r\n"
MAX_CONNECTIONS = 256
MAX_WAITING = 1024


def token(number: int) -> bytes:
    return b'data: {"i":%d,"t":%d}\n\n' % (number, time.monotonic_ns())


def chat_token(number: int) -> bytes:
    """The same in the form of a chat's chunk."""
    choice = b'{"index":0,"delta":{"content":"i:%d,t:%d"}}' % (number, time.monotonic_ns())
    return b'data: {"object":"chat.completion.chunk","choices":[%b]}\n\n' % choice


class Streaming:
    """Writes tokens on a schedule, as the transport takes them; what is ready at once together."""

    def __init__(self, put, done, count: int, every_us: int, made=token) -> None:
        self.put, self.done, self.count, self.every_s = put, done, count, every_us / 1e6
        self.made = made
        self.number = 0
        self.paused = False
        self.loop = asyncio.get_running_loop()
        self.step()

    def step(self) -> None:
        for _ in range(8 if not self.every_s else 1):
            if self.number >= self.count:
                self.done()
                return
            if self.paused:
                return
            end = min(self.count, self.number + (WINDOW if not self.every_s else 1))
            self.put([self.made(number) for number in range(self.number, end)])
            self.number = end
        if self.every_s:
            self.loop.call_later(self.every_s, self.step)
        else:
            self.loop.call_soon(self.step)


class Base(asyncio.Protocol):
    streaming: Streaming | None = None
    joined = False

    def connection_made(self, transport) -> None:
        self.transport = transport

    def pause_writing(self) -> None:
        if self.streaming:
            self.streaming.paused = True

    def resume_writing(self) -> None:
        if self.streaming:
            self.streaming.paused = False
            self.streaming.loop.call_soon(self.streaming.step)

    def answer(self, path: str, headers: dict[str, str]) -> None:
        chats = path.endswith(CHATS)
        if chats or path.endswith("/stream"):
            self.begin(SSE)
            count, every_us = int(headers["x-count"]), int(headers["x-every-us"])
            self.joined = "x-joined" in headers
            made = chat_token if chats else token
            self.streaming = Streaming(self.put, self.end, count, every_us, made)
        else:
            self.whole(path)


def canned(body: bytes) -> bytes:
    """Return a whole answer as HTTP."""
    lines = [b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in HEADERS]
    return b"".join((b"HTTP/1.1 200 OK\r\n", *lines, b"\r\n", body))


class PlainOrigin(Base):
    """HTTP/1.1, one request at a time, just enough of it."""

    buffer = b""
    usual = canned(BODY)
    embedding = canned(json.dumps(EMBEDDED).encode().ljust(len(BODY)))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = int(headers.get("content-length", 0))
        if len(rest) >= length:
            self.buffer = rest[length:]
            self.answer(lines[0].split(" ")[1], headers)

    def whole(self, path: str) -> None:
        self.transport.write(self.embedding if path == EMBEDDINGS else self.usual)

    def begin(self, headers) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )

    def put(self, pieces: list[bytes]) -> None:
        chunks = [b"%x\r\n%b\r\n" % (len(one), one) for one in pieces]
        for chunk in [b"".join(chunks)] if self.joined else chunks:
            self.transport.write(chunk)

    def end(self) -> None:
        done = DONE if self.streaming and self.streaming.made is chat_token else b""
        self.streaming = None
        self.transport.write(done + b"0\r\n\r\n")


class SealedOrigin(Base):
    """An instance behind no relay: preamble, then calls."""

    root = secrets.token_bytes(32)
    ticket = secrets.token_bytes(32)
    launch_id = new_id()
    codec: FrameCodec | None = None
    buffer = b""
    head: dict | None = None
    response = json.dumps({"status": 200, "headers": HEADERS}).encode()

    def data_received(self, data: bytes) -> None:
        if self.codec is None:
            self.buffer += data
            if len(self.buffer) < PREAMBLE_BYTES:
                return
            preamble = Preamble.parse(self.buffer[:PREAMBLE_BYTES])
            nonce = secrets.token_bytes(32)
            self.transport.write(nonce)
            keys = ConnectionKeys.derive(
                self.root, validator_nonce=preamble.nonce, instance_nonce=nonce
            )
            self.codec = FrameCodec.for_instance(keys)
            data = self.buffer[PREAMBLE_BYTES:]
        for frame in self.codec.feed(data):
            if frame.kind is FrameKind.CALL:
                self.call = frame.payload
            elif frame.kind is FrameKind.END:
                if b"/stream" in self.call:
                    head = json.loads(self.call)
                    self.answer(head["path"], dict(head["headers"]))
                else:
                    self.whole("")

    def whole(self, path: str) -> None:
        parts = (
            (FrameKind.RESPONSE, self.response),
            (FrameKind.BODY, BODY),
            (FrameKind.END, b'{"busy_us":1}'),
        )
        self.transport.write(self.codec.seal_together(*parts))

    def begin(self, headers) -> None:
        head = json.dumps({"status": 200, "headers": headers}).encode()
        self.transport.write(self.codec.seal(FrameKind.RESPONSE, head))

    def put(self, pieces: list[bytes]) -> None:
        kind = FrameKind.BODY
        frames = [(kind, piece) for piece in pieces]
        self.transport.write(self.codec.seal_together(*frames))

    def end(self) -> None:
        self.streaming = None
        self.transport.write(self.codec.seal(FrameKind.END, b'{"busy_us":1}'))


async def origin() -> None:
    loop = asyncio.get_running_loop()
    ports = []
    for kind in (PlainOrigin, SealedOrigin):
        server = await loop.create_server(kind, "127.0.0.1", 0, backlog=1024)
        ports.append(server.sockets[0].getsockname()[1])
    one = SealedOrigin
    say(ports[0], ports[1], one.launch_id, one.ticket.hex(), one.root.hex())
    await asyncio.Event().wait()


async def gateway(kind: str, place: list) -> None:
    from dataclasses import replace

    from gateway_stand_in import World, cord, planed, serving

    from chutes_core.base.latency import favour_latency
    from chutes_core.validator.domain.snapshot import InstanceView
    from chutes_core.validator.gateway.gateway import Gateway
    from chutes_core.validator.gateway.journal import Journal
    from chutes_core.validator.gateway.limits import GatewayLimits

    async def control(scope, receive, send) -> None:
        raise AssertionError("only invocations come here")

    _, port, launch_id, ticket, root = place
    world = World()
    user = world.user(spendable_rao=10**18)
    chute, key = world.chute(user), world.key(user)
    world.chutes[chute.chute_id] = replace(chute, cords=(*chute.cords, cord("/stream")))
    sealed = bytes.fromhex(ticket), bytes.fromhex(root)
    slots = MAX_WAITING if kind == "cold" else MAX_CONNECTIONS
    view = InstanceView(launch_id, chute.chute_id, "127.0.0.1", port, *sealed, slots)
    world.instances[chute.chute_id] = (view,)
    limits = GatewayLimits(
        key_calls_per_s=10**6,
        key_burst=10**6,
        max_idle_per_instance=MAX_CONNECTIONS,
        max_waiting_per_chute=MAX_WAITING,
    )
    with tempfile.TemporaryDirectory() as directory:
        made = Gateway(control=control, journal=Journal(Path(directory), "bench"), limits=limits)
        made.swap(world.snapshot())
        favour_latency()  # as the validator's entry does
        async with serving(made.front) if kind == "reference" else planed(made) as own:
            say(own, f"/c/{chute.slug}/api", key)
            if kind != "cold":
                await asyncio.Event().wait()
            there = world.snapshot()
            world.instances.clear()
            await obey(made, {"up": there, "down": world.snapshot()})


async def obey(gateway, snapshots: dict) -> None:
    """Have the instance or not, as standard input says; ends with it."""
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while order := (await orders.readline()).decode().strip():
        now = time.monotonic_ns()
        if order == "waiting":
            say(gateway.stats()["waiting"])
            continue
        gateway.swap(snapshots[order])
        say(now)


async def fastapi_proxy(port: int) -> None:
    import aiohttp
    import fastapi
    from fastapi.responses import StreamingResponse
    from gateway_stand_in import serving

    app = fastapi.FastAPI()
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS))

    @app.post("/api/stream")
    async def stream(request: fastapi.Request) -> fastapi.Response:
        headers = {n: request.headers[n] for n in ("x-count", "x-every-us")}
        response = await session.post(
            f"http://127.0.0.1:{port}/stream", data=await request.body(), headers=headers
        )
        return StreamingResponse(response.content.iter_any(), media_type="text/event-stream")

    @app.post("/api/{path:path}")
    async def proxy(path: str, request: fastapi.Request) -> fastapi.Response:
        onward = f"http://127.0.0.1:{port}/{path}"
        async with session.post(onward, data=await request.body()) as response:
            return fastapi.Response(
                await response.read(), response.status, media_type=response.content_type
            )

    async with serving(app) as own:
        say(own, "/api", "none")
        await asyncio.Event().wait()


def say(*facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["origin"]:
            job = origin()
        case ["gateway" | "reference" | "cold" as kind, place]:
            job = gateway(kind, json.loads(place))
        case ["fastapi", place]:
            job = fastapi_proxy(json.loads(place)[0])
        case _:
            sys.exit(__doc__)
    uvloop.run(job)
