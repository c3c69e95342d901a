"""Calls against raw ASGI applications on a real chute loop, over a link in memory."""

import asyncio
import json
import threading
import uuid

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import ProtocolError, TooLarge
from chutes_core.runner import exchange as exchange_module
from chutes_core.runner.chute_loop import ChuteLoop
from chutes_core.runner.executor import Executor, Service
from chutes_core.wire.frames import Frame, FrameKind

END = Frame(FrameKind.END, b"")
CALL = Frame(
    FrameKind.CALL,
    json.dumps({"invocation_id": str(uuid.UUID(int=1)), "method": "POST", "path": "/x"}).encode(),
)


class MemoryLink:
    """The instance's end of a connection, with the validator's end in two queues."""

    def __init__(self, *frames):
        self.incoming = list(frames)
        self.sent = []
        self.reading = asyncio.Event()
        self.reading.set()
        self._more = asyncio.Event()

    def push(self, frame):
        """Let a frame arrive; None is the peer's end."""
        self.incoming.append(frame)
        self._more.set()

    async def peek(self):
        while not self.incoming:
            self._more.clear()
            await self._more.wait()
        return self.incoming[0]

    async def next_frame(self):
        frame = await self.peek()
        if frame is not None:
            self.incoming.pop(0)
        return frame

    async def has_end(self):
        return bool(self.incoming) and self.incoming[0] == END

    async def send(self, *frames):
        await self.reading.wait()
        self.sent.extend(Frame(kind, payload) for kind, payload in frames)

    async def send_message(self, kind, message):
        await self.send((kind, message.model_dump_json().encode()))

    async def send_error(self, error):
        await self.send((FrameKind.ERROR, json.dumps({"code": error.code}).encode()))

    @property
    def kinds(self):
        return [frame.kind.name for frame in self.sent]


@pytest.fixture
def chute_loop():
    loop = ChuteLoop()
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield loop
    loop.stop()
    thread.join()


@pytest.fixture
def executor(chute_loop):
    return Executor(chute_loop, ManualClock())


def answer(body=b"ok", headers=(), more=False):
    return (
        {"type": "http.response.start", "status": 200, "headers": list(headers)},
        {"type": "http.response.body", "body": body, "more_body": more},
    )


def replies(*messages):
    async def app(_scope, _receive, send):
        for message in messages:
            await send(message)

    return app


async def run(executor, app, link, concurrency=1):
    executor.serve(Service(app, concurrency))
    return await asyncio.wait_for(executor.run(link, CALL), 10)


async def test_a_whole_call_is_response_body_end(executor):
    """The plain case, after which the connection is good for another call."""
    link = MemoryLink(END)
    assert await run(executor, replies(*answer()), link)
    assert link.kinds == ["RESPONSE", "BODY", "END"]


async def test_the_request_body_arrives_in_order_and_whole(executor):
    """Every BODY frame becomes one message, the last one with END."""
    seen = []

    async def app(_scope, receive, send):
        while True:
            message = await receive()
            seen.append((message["body"], message["more_body"]))
            if not message["more_body"]:
                break
        for reply in answer():
            await send(reply)

    bodies = [Frame(FrameKind.BODY, bytes([65 + i]) * 3) for i in range(20)]
    assert await run(executor, app, MemoryLink(*bodies, END))
    assert b"".join(body for body, _ in seen) == b"".join(frame.payload for frame in bodies)
    assert [more for _, more in seen] == [True] * 19 + [False]


async def test_an_answer_before_the_request_ended_drops_the_rest(executor):
    """An application that reads nothing of a long request does not stall its connection."""
    bodies = [Frame(FrameKind.BODY, b"x" * 1000) for _ in range(100)]
    link = MemoryLink(*bodies, END)
    assert await run(executor, replies(*answer()), link)
    assert link.incoming == []


@pytest.mark.parametrize(
    "messages",
    [
        (),
        answer()[:1],
        answer()[1:],
        answer(b"too long", [(b"content-length", b"3")]),
        answer(b"short", [(b"content-length", b"30")]),
        (answer()[0], answer()[0]),
        ({"type": "http.response.start", "status": 9, "headers": []},),
    ],
)
async def test_a_broken_application_is_an_error_and_the_place_comes_free(executor, messages):
    """No response, half a response, a wrong length or a wrong order end in ERROR bad_response."""
    link = MemoryLink(END)
    assert await run(executor, replies(*messages), link)
    assert link.sent[-1].json() == {"code": "bad_response"}
    assert await run(executor, replies(*answer()), MemoryLink(END))


async def test_work_after_the_response_holds_no_place(executor):
    """A background task of the framework does not keep the next caller out."""
    go_on = threading.Event()

    async def app(_scope, _receive, send):
        for reply in answer():
            await send(reply)
        await asyncio.to_thread(go_on.wait, 10)

    assert await run(executor, app, MemoryLink(END))
    link = MemoryLink(END)
    assert await run(executor, app, link)
    assert link.kinds == ["RESPONSE", "BODY", "END"]
    go_on.set()


async def test_a_thread_that_goes_on_holds_its_place(executor, monkeypatch):
    """After its caller has left, a sync cord occupies the chute until its thread returns."""
    monkeypatch.setattr(exchange_module, "LEAVE_GRACE_S", 0.01)
    go_on, running = threading.Event(), threading.Event()

    def work():
        running.set()
        go_on.wait(10)

    async def app(_scope, _receive, send):
        working = asyncio.ensure_future(asyncio.to_thread(work))
        while not working.done():
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                continue
        for reply in answer():
            await send(reply)

    link = MemoryLink(END)
    call = asyncio.ensure_future(run(executor, app, link))
    await asyncio.to_thread(running.wait, 10)
    link.push(None)
    assert await call is False
    refused = MemoryLink(END)
    assert await run(executor, app, refused)
    assert refused.sent[0].json() == {"code": "at_capacity"}
    go_on.set()
    await asyncio.wait_for(executor.drain(10), 10)


async def test_a_caller_that_leaves_is_a_disconnect_and_then_a_cancellation(executor, monkeypatch):
    """An application that ignores http.disconnect is cancelled after the grace time."""
    monkeypatch.setattr(exchange_module, "LEAVE_GRACE_S", 0.01)
    seen, running = [], threading.Event()

    async def app(_scope, receive, _send):
        await receive()
        running.set()
        seen.append((await receive())["type"])
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    link = MemoryLink(END)
    call = asyncio.ensure_future(run(executor, app, link))
    await asyncio.to_thread(running.wait, 10)
    link.push(None)
    assert await call is False
    await asyncio.wait_for(executor.drain(10), 10)
    assert seen == ["http.disconnect", "cancelled"]


async def test_a_caller_that_leaves_before_its_body_never_starts_the_application(executor):
    """CALL without BODY or END and then the end: the place is free again."""
    assert await run(executor, replies(*answer()), MemoryLink(None)) is False
    assert await run(executor, replies(*answer()), MemoryLink(END))


async def test_a_slow_reader_slows_the_application_down(executor):
    """No more than WINDOW chunks pile up for a caller that does not read."""
    sent = 0
    full = threading.Event()

    async def app(_scope, _receive, send):
        nonlocal sent
        await send(answer()[0])
        for _ in range(50):
            await send(answer(b"chunk", more=True)[1])
            sent += 1
            if sent == exchange_module.WINDOW - 1:
                full.set()
        await send(answer(b"")[1])

    link = MemoryLink(END)
    link.reading.clear()
    call = asyncio.ensure_future(run(executor, app, link))
    await asyncio.to_thread(full.wait, 10)
    assert sent <= exchange_module.WINDOW
    link.reading.set()
    assert await call
    assert (sent, link.kinds.count("BODY")) == (50, 50)


async def test_a_frame_that_has_no_place_in_a_request_breaks_the_call(executor):
    """PING between CALL and END is a violation, and the place comes free."""
    with pytest.raises(ProtocolError):
        await run(executor, replies(*answer()), MemoryLink(Frame(FrameKind.PING, b""), END))
    assert await run(executor, replies(*answer()), MemoryLink(END))


async def test_draining_cancels_what_does_not_end(executor, monkeypatch):
    """After the grace time a running call is cancelled and its connection ends."""
    monkeypatch.setattr(exchange_module, "LEAVE_GRACE_S", 0.01)
    running = threading.Event()

    async def app(_scope, _receive, _send):
        running.set()
        await asyncio.Event().wait()

    call = asyncio.ensure_future(run(executor, app, MemoryLink(END)))
    await asyncio.to_thread(running.wait, 10)
    await asyncio.wait_for(executor.drain(0.01), 10)
    assert await call is False
    link = MemoryLink(END)
    assert await run(executor, app, link)
    assert link.sent[0].json() == {"code": "draining"}


async def test_head_has_no_body(executor):
    """A response to HEAD keeps its content-length and sends nothing of its body."""
    executor.serve(Service(replies(*answer(b"four", [(b"content-length", b"4")])), 1))
    head = {"invocation_id": str(uuid.UUID(int=1)), "method": "HEAD", "path": "/x"}
    link = MemoryLink(END)
    call = Frame(FrameKind.CALL, json.dumps(head).encode())
    assert await asyncio.wait_for(executor.run(link, call), 10)
    assert link.kinds == ["RESPONSE", "END"]


async def test_odd_header_names_reach_the_application(executor):
    """A header that is no latin-1 neither breaks the call nor keeps its place."""
    executor.serve(Service(replies(*answer()), 1))
    head = {
        "invocation_id": str(uuid.UUID(int=1)),
        "method": "POST",
        "path": "/\u4f60",
        "headers": [["x-\u4f60", "\u597d"]],
    }
    for _ in range(2):
        link = MemoryLink(END)
        call = Frame(FrameKind.CALL, json.dumps(head).encode())
        assert await asyncio.wait_for(executor.run(link, call), 10)
        assert link.kinds == ["RESPONSE", "BODY", "END"]


async def test_a_request_over_the_bound_ends_its_call(executor, monkeypatch):
    """The largest passes; one byte more is refused while it comes, and the place is free again."""
    monkeypatch.setattr("chutes_core.runner.executor.MAX_REQUEST_BYTES", 10)

    async def app(_scope, receive, send):
        while (await receive()).get("more_body"):
            continue
        for message in answer():
            await send(message)

    fits = [Frame(FrameKind.BODY, b"12345"), Frame(FrameKind.BODY, b"67890"), END]
    assert await run(executor, app, MemoryLink(*fits))
    with pytest.raises(TooLarge) as caught:
        await run(executor, app, MemoryLink(fits[0], fits[1], Frame(FrameKind.BODY, b"x"), END))
    assert caught.value.code == "body_too_large"
    assert await run(executor, app, MemoryLink(*fits))
