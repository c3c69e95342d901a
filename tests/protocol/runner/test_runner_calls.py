"""Calls to a started chute over real sealed connections."""

import asyncio
import json
import uuid

import pytest

from chutes_core.base.errors import Unavailable
from chutes_core.wire.frames import BODY_CHUNK_BYTES, FrameKind


class Caller:
    """One pooled connection of a gateway."""

    def __init__(self, connection):
        self.connection = connection

    async def begin(self, path, body=b"", *, method="POST", end=True, headers=()):
        head = {
            "invocation_id": str(uuid.uuid4()),
            "method": method,
            "path": path,
            "headers": [["content-type", "application/json"], *headers],
        }
        await self.connection.send_json(FrameKind.CALL, head)
        for at in range(0, len(body), BODY_CHUNK_BYTES):
            await self.connection.send(FrameKind.BODY, body[at : at + BODY_CHUNK_BYTES])
        if end:
            await self.connection.send(FrameKind.END)

    async def next(self):
        return await self.connection.receive(20)

    async def rest(self):
        """Frames until END or ERROR."""
        frames = [await self.next()]
        while frames[-1].kind not in (FrameKind.END, FrameKind.ERROR):
            frames.append(await self.next())
        return frames

    async def call(self, path, value=None, **options):
        """(status or error code, body) of a whole call."""
        body = b"" if value is None else json.dumps(value).encode()
        await self.begin(path, body, **options)
        frames = await self.rest()
        if frames[0].kind is FrameKind.ERROR:
            return frames[0].json()["code"], b""
        assert frames[-1].json()["busy_us"] >= 0
        return frames[0].json()["status"], b"".join(frame.payload for frame in frames[1:-1])


def arguments(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


@pytest.fixture
async def caller(serving):
    made = Caller(await serving.open())
    yield made
    await made.connection.close()


@pytest.fixture
async def other(serving):
    made = Caller(await serving.open())
    yield made
    await made.connection.close()


async def test_a_json_call_has_byte_exact_body_and_reuses_its_connection(caller):
    """Several calls one after another on one connection, at both of a cord's paths."""
    expected = '{"text":"hé"'.encode()
    for path, value in (("/v1/echo", {"text": "hé"}), ("/echo", arguments("hé"))) * 3:
        status, body = await caller.call(path, value)
        assert status == 200
        assert body.startswith(expected)
        assert json.loads(body)["secret"] == "very-secret-token"


async def test_a_stream_is_one_frame_for_each_item(caller):
    """Each yielded item is its own BODY frame, byte for byte."""
    await caller.begin("/count", json.dumps(arguments(5)).encode())
    frames = await caller.rest()
    assert frames[0].json()["status"] == 200
    assert [f.payload for f in frames[1:-1]] == [f"data: {i}\n\n".encode() for i in range(5)]
    assert frames[-1].kind is FrameKind.END


async def test_a_large_request_arrives_whole(caller):
    """Two megabytes in many BODY frames arrive as they were sent."""
    status, body = await caller.call("/size", {"data": "x" * 2_000_000})
    assert (status, body) == (200, b"2000000")


async def test_wrong_paths_and_bodies_are_ordinary_responses(caller):
    """404 and 422 are responses of the chute, not errors of the connection."""
    assert (await caller.call("/nothing"))[0] == 404
    assert (await caller.call("/v1/echo", {"wrong": 1}))[0] == 422
    assert (await caller.call("/v1/echo", {"text": "after"}))[0] == 200


async def test_the_invocation_id_and_no_hop_headers_reach_the_chute(caller):
    """A call with hop-by-hop headers works; they are dropped on the way in."""
    hop = [["connection", "close"], ["transfer-encoding", "chunked"]]
    assert (await caller.call("/v1/echo", {"text": "x"}, headers=hop))[0] == 200


async def test_leaving_mid_stream_is_seen_by_the_chute(serving, caller):
    """When the caller closes, the generator is cancelled and its slot comes free."""
    leaver = Caller(await serving.open())
    await leaver.begin("/forever", json.dumps(arguments()).encode())
    assert (await leaver.next()).kind is FrameKind.RESPONSE
    assert (await leaver.next()).payload == b"data: first\n\n"
    leaver.connection.abort()
    for _ in range(500):
        _, body = await caller.call("/v1/echo", {"text": "?"})
        if "forever cancelled" in json.loads(body)["seen"]:
            return
        await asyncio.sleep(0.01)  # the chute's own thread runs its finally block
    pytest.fail("the chute did not see the caller leave")


async def test_a_frame_before_the_end_breaks_the_call(serving):
    """A second CALL before the first has ended gets ERROR and the connection ends."""
    hasty = Caller(await serving.open())
    await hasty.begin("/forever", json.dumps(arguments()).encode())
    await hasty.next()
    await hasty.next()
    await hasty.begin("/count", end=False)
    frames = await hasty.rest()
    assert frames[-1].json()["code"] == "unexpected_frame"
    with pytest.raises(Unavailable):
        await hasty.next()
    await hasty.connection.close()


async def test_a_failure_mid_stream_is_an_error_and_the_connection_goes_on(caller):
    """ERROR stands inside the stream, and the next call on the connection works."""
    await caller.begin("/break_off", json.dumps(arguments()).encode())
    frames = await caller.rest()
    assert [f.kind for f in frames] == [FrameKind.RESPONSE, FrameKind.BODY, FrameKind.ERROR]
    assert frames[-1].json()["code"] == "cord_failed"
    assert (await caller.call("/v1/echo", {"text": "after"}))[0] == 200


async def test_a_cord_that_leaves_the_process_does_not_end_the_instance(caller):
    """``sys.exit`` in a cord fails that call alone."""
    assert (await caller.call("/leave_process", arguments()))[0] in (500, "cord_failed")
    assert (await caller.call("/v1/echo", {"text": "after"}))[0] == 200


async def test_signals_of_a_forked_child_are_not_the_instances(caller):
    """A child that the chute forks and terminates dies alone."""
    assert await caller.call("/end_a_child", arguments()) == (200, b"-15")
    assert (await caller.call("/v1/echo", {"text": "after"}))[0] == 200


async def test_calls_side_by_side_up_to_the_concurrency(serving, caller, other):
    """Two connections hold both slots; a third call is refused at once and its connection lives."""
    third = Caller(await serving.open())
    for one in (caller, other):
        await one.begin("/forever", json.dumps(arguments()).encode())
        await one.next()
        await one.next()
    assert await third.call("/v1/echo", {"text": "?"}) == ("at_capacity", b"")
    caller.connection.abort()
    other.connection.abort()
    for _ in range(500):
        code, _ = await third.call("/v1/echo", {"text": "?"})
        if code == 200:
            break
        await asyncio.sleep(0.01)  # slots come free when the chute lets go
    assert code == 200
    await third.connection.close()


async def test_a_chute_that_blocks_its_loop_does_not_block_the_session(
    start_runner, tmp_path, wait_for_text
):
    """While an async cord blocks, PING, RENEW and refusals are answered at once."""
    runner = start_runner()
    await asyncio.to_thread(runner.prove)
    mark = tmp_path / "mark"
    started = await asyncio.to_thread(runner.start, str(mark), concurrency=1)
    assert started.kind is FrameKind.STARTED
    blocker, free = Caller(await runner.open()), Caller(await runner.open())
    await blocker.begin("/block_the_loop", json.dumps(arguments()).encode())
    await asyncio.to_thread(wait_for_text, mark, "blocked")
    assert await free.call("/v1/echo", {"text": "?"}) == ("at_capacity", b"")
    await free.connection.send(FrameKind.PING, b"alive")
    assert (await free.next()).payload == b"alive"
    await free.connection.send_json(FrameKind.RENEW, {"lease_until_s": 4_000_000_000})
    assert (await free.next()).kind is FrameKind.OK
    for one in (blocker, free):
        one.connection.abort()
