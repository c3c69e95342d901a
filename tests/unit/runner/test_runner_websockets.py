"""A websocket at the instance: the handshake with the chute's server, its bounds, the slot."""

import asyncio
import json
import socket
from types import SimpleNamespace

import pytest

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import ProtocolError
from chutes_core.runner import passthrough, websockets
from chutes_core.runner.executor import Executor, Service
from chutes_core.runner.job_socket import connect
from chutes_core.runner.passthrough import Passthrough, passthroughs
from chutes_core.wire.frames import Frame, FrameKind

PATIENCE_S = 60.0
HEAD = {
    "invocation_id": "00000000-0000-4000-8000-000000000001",
    "method": "GET",
    "path": "/talk",
    "headers": [["sec-websocket-key", "k"], ["x-mine", "1"]],
    "upgrade": "websocket",
}
CALL = Frame(FrameKind.CALL, json.dumps(HEAD).encode())
SWITCHED = b"HTTP/1.1 101 Switching\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: a\r\n\r\n"


class Link:
    """The instance's end of a connection in memory; ``told`` are the frames that left."""

    def __init__(self):
        self.told = asyncio.Queue()
        self.came = asyncio.Queue()
        self.ahead = None
        self.aborted = False
        self.executor = None

    async def peek(self):
        if self.ahead is None:
            self.ahead = asyncio.ensure_future(self.came.get())
        return await asyncio.shield(self.ahead)

    async def next_frame(self):
        frame = await self.peek()
        if frame is not None:
            self.ahead = None
        return frame

    async def send(self, *frames):
        for kind, payload in frames:
            self.told.put_nowait((kind.name, payload))
            if kind is FrameKind.END:
                assert self.executor._active == 0, "the slot is free before END leaves"

    async def send_error(self, error):
        self.told.put_nowait(("ERROR", error.code))

    def abort(self):
        self.aborted = True
        self.came.put_nowait(None)

    async def hears(self):
        return await asyncio.wait_for(self.told.get(), PATIENCE_S)

    def say(self, data):
        self.came.put_nowait(Frame(FrameKind.BODY, data))


class Server:
    """What listens behind the cord: `heard` is the handshake; its test says the rest."""

    def __init__(self):
        self.heard = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()

    async def accept(self, reader, writer):
        self.reader, self.writer = reader, writer
        try:
            self.heard.set_result(await reader.readuntil(b"\r\n\r\n"))
            await self.gone.wait()
        finally:
            writer.transport.abort()


@pytest.fixture
async def server():
    made = Server()
    async with await asyncio.start_server(made.accept, "127.0.0.1", 0) as listener:
        made.port = listener.sockets[0].getsockname()[1]
        yield made
        made.gone.set()


@pytest.fixture
async def run(server):
    """Return a function that begins a call; at the end it has ended, and the slot is free."""
    link = Link()
    executor = link.executor = Executor(None, SystemClock())
    way = Passthrough(server.port, "/there", {"X-Mine": "2", "Host": "other"})
    tasks = []

    def begin(call=CALL, ways=None):
        executor.serve(Service(None, 1, {"/talk": way} if ways is None else ways))
        tasks.append(asyncio.ensure_future(executor.run(link, call)))
        return link

    begin.executor, begin.tasks = executor, tasks
    yield begin
    if not tasks[0].done():
        link.came.put_nowait(None)
    assert await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)
    assert executor._active == 0
    assert not executor._calls


async def test_the_server_hears_the_handshake_of_this_hop(run, server):
    """The caller's headers, the chute's own above them, and Host and Upgrade of the runner's."""
    run()
    heard = (await asyncio.wait_for(server.heard, PATIENCE_S)).decode().split("\r\n")
    assert heard[0] == "GET /there HTTP/1.1"
    lines = {line.lower() for line in heard[1:-2]}
    assert lines == {
        f"host: 127.0.0.1:{server.port}",
        "connection: upgrade",
        "upgrade: websocket",
        f"x-chutes-invocationid: {HEAD['invocation_id']}",
        "sec-websocket-key: k",
        "x-mine: 2",
    }


async def test_what_follows_the_101_at_once_is_not_lost(run, server):
    """The first bytes may come with the answer; then bytes go both ways, and END is the last."""
    link = run()
    await asyncio.wait_for(server.heard, PATIENCE_S)
    server.writer.write(SWITCHED + b"first")
    kind, payload = await link.hears()
    assert (kind, json.loads(payload)["status"]) == ("RESPONSE", 101)
    assert json.loads(payload)["headers"] == [["sec-websocket-accept", "a"]]
    assert await link.hears() == ("BODY", b"first")
    link.say(b"up")
    assert await asyncio.wait_for(server.reader.readexactly(2), PATIENCE_S) == b"up"
    server.writer.write(b"down")
    assert await link.hears() == ("BODY", b"down")
    server.gone.set()
    assert (await link.hears())[0] == "END"


async def test_any_other_answer_is_passed_on_whole(run, server):
    """A refusal has its body, with its length, and the call is over."""
    link = run()
    await asyncio.wait_for(server.heard, PATIENCE_S)
    server.writer.write(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n"
        b"X-Why: you\r\n\r\n3\r\nnot\r\n4\r\n you\r\n0\r\n\r\n"
    )
    _, payload = await link.hears()
    said = json.loads(payload)
    assert (said["status"], said["headers"]) == (403, [["x-why", "you"], ["content-length", "7"]])
    assert await link.hears() == ("BODY", b"not you")
    assert (await link.hears())[0] == "END"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\x16\x03\x01 no HTTP\r\n\r\n",
    ],
)
async def test_nonsense_is_the_chutes_fault(run, server, answer):
    """What is no answer to a handshake is bad_response, and none of it is passed on."""
    link = run()
    await asyncio.wait_for(server.heard, PATIENCE_S)
    server.writer.write(answer)
    await server.writer.drain()
    server.gone.set()
    assert await link.hears() == ("ERROR", "bad_response")


async def test_too_long_a_refusal_is_none(run, server, monkeypatch):
    """Its body is bounded."""
    monkeypatch.setattr(passthrough, "MAX_REFUSAL_BYTES", 10)
    link = run()
    await asyncio.wait_for(server.heard, PATIENCE_S)
    server.writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 11\r\n\r\n" + bytes(11))
    assert await link.hears() == ("ERROR", "bad_response")


async def test_too_long_a_head_is_none(run, server):
    """So is its head."""
    link = run()
    await asyncio.wait_for(server.heard, PATIENCE_S)
    line = b"a" * (passthrough.MAX_HEAD_BYTES + 1)
    server.writer.write(b"HTTP/1.1 101 Switching\r\nX-Long: " + line)
    assert await link.hears() == ("ERROR", "bad_response")


async def test_a_server_that_says_nothing_is_502(run, server, monkeypatch):
    """It has so many seconds for its answer."""
    monkeypatch.setattr(websockets, "HANDSHAKE_S", 0.05)
    link = run()
    _, payload = await link.hears()
    assert json.loads(payload)["status"] == 502
    assert json.loads((await link.hears())[1])["code"] == "passthrough_unreachable"
    assert (await link.hears())[0] == "END"
    del server


async def test_a_server_that_cannot_be_dialled_in_time_is_502(run, monkeypatch):
    """So many seconds to be dialled."""

    async def never(*_place):
        await asyncio.Event().wait()

    monkeypatch.setattr(websockets, "DIAL_S", 0.05)
    monkeypatch.setattr(websockets, "connect", never)
    link = run()
    assert json.loads((await link.hears())[1])["status"] == 502


async def test_no_cord_at_the_path_is_404(run):
    """The instance's own cords decide."""
    link = run(ways={})
    _, payload = await link.hears()
    assert json.loads(payload)["status"] == 404


async def test_bytes_before_the_101_break_the_protocol(run, server):
    """Nothing of a caller's may reach the server before it has agreed."""
    link = run()
    await asyncio.wait_for(server.heard, PATIENCE_S)
    link.say(b"early")
    with pytest.raises(ProtocolError):
        await asyncio.wait_for(run.tasks[0], PATIENCE_S)
    assert await asyncio.wait_for(server.reader.read(), PATIENCE_S) == b""


async def test_a_validator_that_leaves_ends_the_handshake(run, server):
    """The server's connection is closed with it."""
    link = run()
    await asyncio.wait_for(server.heard, PATIENCE_S)
    link.came.put_nowait(None)
    assert await asyncio.wait_for(run.tasks[0], PATIENCE_S) is False
    assert await asyncio.wait_for(server.reader.read(), PATIENCE_S) == b""


async def test_a_drain_ends_a_handshake_with_draining(run, server):
    """The call can go to another instance."""
    link = run()
    await asyncio.wait_for(server.heard, PATIENCE_S)
    await run.executor.drain(0.0)
    assert await link.hears() == ("ERROR", "draining")


async def test_one_too_many_is_refused_and_reads_nothing(run, server):
    """A websocket has no END that would have to be skipped."""
    link = run()
    await asyncio.wait_for(server.heard, PATIENCE_S)
    other = Link()
    assert await asyncio.wait_for(run.executor.run(other, CALL), PATIENCE_S) is False
    assert await other.hears() == ("ERROR", "at_capacity")
    del link


async def test_a_silent_websocket_ends_by_the_runners_own_bound(run, server, monkeypatch):
    """For when the validator forgets it."""
    monkeypatch.setattr(websockets, "IDLE_S", 0.05)
    link = run()
    await asyncio.wait_for(server.heard, PATIENCE_S)
    server.writer.write(SWITCHED)
    assert (await link.hears())[0] == "RESPONSE"
    assert await asyncio.wait_for(run.tasks[0], PATIENCE_S) is False
    assert link.aborted


def test_only_passthrough_cords_by_get_are_led_anywhere():
    """A handshake is a GET, at the public path."""

    def cord(**fields):
        defaults = {
            "passthrough": True,
            "passthrough_path": "/there",
            "passthrough_port": 8000,
            "public_api_path": "/talk",
            "public_api_method": "GET",
        }
        return SimpleNamespace(**{**defaults, **fields})

    others = (
        {"passthrough": False},
        {"passthrough_port": None},
        {"public_api_path": None},
        {"public_api_method": "POST"},
    )
    assert passthroughs([cord(**fields) for fields in others], {}) == {}
    assert passthroughs([cord()], {"A": "b"}) == {"/talk": Passthrough(8000, "/there", {"A": "b"})}


async def test_the_last_words_of_a_server_that_closed_are_heard_though_its_caller_goes_on():
    """A server that refuses what is sent to it says why and closes: the caller learns that."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        end = passthrough.ServerEnd(await connect(*listening.getsockname()))
        server, _ = listening.accept()
        with server:
            await end.send(b"a message that is too big")
            server.recv(1)
            server.sendall(b"1009")
        for _ in range(8):  # to one that is gone
            await end.send(bytes(64 * 1024))
        assert await asyncio.wait_for(end.receive(), PATIENCE_S) == b"1009"
        assert await asyncio.wait_for(end.receive(), PATIENCE_S) is None
        end.abort()
