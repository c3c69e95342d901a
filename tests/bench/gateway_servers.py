"""Children of the gateway's benchmark: one origin that speaks sealed frames and plain HTTP, and the
contenders that stand in front of it. Each prints one JSON line (what the parent must know), then
serves until it is killed.

    origin | gateway PLACE | reference PLACE | fastapi PORT

PLACE is the origin's JSON line. The origin answers with BODY, and where the path ends in /stream
with server-sent events: `x-count` chunks, one each `x-every-us` (0: as fast as they go), each with
the monotonic time at which it left.
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
from chutes_core.wire.frames import FrameCodec, FrameKind  # noqa: E402
from chutes_core.wire.sealing import PREAMBLE_BYTES, ConnectionKeys, Preamble  # noqa: E402

BODY = json.dumps({"data": [{"embedding": [0.125] * 168}]}).encode()  # about 1 KB
HEADERS = (("content-type", "application/json"), ("content-length", str(len(BODY))))
SSE = (("content-type", "text/event-stream"),)
MAX_CONNECTIONS = 256


def token(number: int) -> bytes:
    return b'data: {"i":%d,"t":%d}\n\n' % (number, time.monotonic_ns())


class Streaming:
    """Writes tokens on a schedule, as the transport takes them."""

    def __init__(self, put, done, count: int, every_us: int) -> None:
        self.put, self.done, self.count, self.every_s = put, done, count, every_us / 1e6
        self.number = 0
        self.paused = False
        self.loop = asyncio.get_running_loop()
        self.step()

    def step(self) -> None:
        for _ in range(64 if not self.every_s else 1):
            if self.number >= self.count:
                self.done()
                return
            if self.paused:
                return
            self.put(token(self.number))
            self.number += 1
        if self.every_s:
            self.loop.call_later(self.every_s, self.step)
        else:
            self.loop.call_soon(self.step)


class Base(asyncio.Protocol):
    streaming: Streaming | None = None

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
        if path.endswith("/stream"):
            self.begin(SSE)
            count, every_us = int(headers["x-count"]), int(headers["x-every-us"])
            self.streaming = Streaming(self.put, self.end, count, every_us)
        else:
            self.whole()


class PlainOrigin(Base):
    """HTTP/1.1, one request at a time, just enough of it."""

    buffer = b""
    canned = (
        (
            b"HTTP/1.1 200 OK\r\n"
            + b"".join(b"%b: %b\r\n" % (n.encode(), v.encode()) for n, v in HEADERS)
        )
        + b"\r\n"
        + BODY
    )

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

    def whole(self) -> None:
        self.transport.write(self.canned)

    def begin(self, headers) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )

    def put(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.streaming = None
        self.transport.write(b"0\r\n\r\n")


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
                    self.whole()

    def whole(self) -> None:
        parts = (
            (FrameKind.RESPONSE, self.response),
            (FrameKind.BODY, BODY),
            (FrameKind.END, b'{"busy_us":1}'),
        )
        self.transport.write(self.codec.seal_together(*parts))

    def begin(self, headers) -> None:
        head = json.dumps({"status": 200, "headers": headers}).encode()
        self.transport.write(self.codec.seal(FrameKind.RESPONSE, head))

    def put(self, data: bytes) -> None:
        self.transport.write(self.codec.seal(FrameKind.BODY, data))

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
    view = InstanceView(launch_id, chute.chute_id, "127.0.0.1", port, *sealed, MAX_CONNECTIONS)
    world.instances[chute.chute_id] = (view,)
    limits = GatewayLimits(
        key_calls_per_s=10**6, key_burst=10**6, max_idle_per_instance=MAX_CONNECTIONS
    )
    with tempfile.TemporaryDirectory() as directory:
        made = Gateway(control=control, journal=Journal(Path(directory), "bench"), limits=limits)
        made.swap(world.snapshot())
        favour_latency()  # as the validator's entry does
        async with planed(made) if kind == "gateway" else serving(made.front) as own:
            say(own, f"/c/{chute.slug}/api", key)
            await asyncio.Event().wait()


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
        case ["gateway" | "reference" as kind, place]:
            job = gateway(kind, json.loads(place))
        case ["fastapi", place]:
            job = fastapi_proxy(json.loads(place)[0])
        case _:
            sys.exit(__doc__)
    uvloop.run(job)
