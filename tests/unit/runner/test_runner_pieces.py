"""Pieces of a response that are ready at once leave in one send, in order, and none waits."""

import asyncio
import json
import threading
import uuid

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.runner.chute_loop import ChuteLoop
from chutes_core.runner.exchange import WINDOW
from chutes_core.runner.executor import Executor, Service
from chutes_core.wire.frames import BODY_CHUNK_BYTES, Frame, FrameKind

PATIENCE_S = 60.0
HEAD = {"type": "http.response.start", "status": 200, "headers": []}
CALL = Frame(
    FrameKind.CALL,
    json.dumps({"invocation_id": str(uuid.UUID(int=1)), "method": "POST", "path": "/x"}).encode(),
)


class Peer:
    """The validator's end: its request is whole, and it takes a send when it is told to."""

    def __init__(self):
        self.sends = []
        self.took_first = asyncio.Event()
        self.taking = asyncio.Event()
        self.gone = asyncio.Event()
        self._request = [Frame(FrameKind.END, b"")]

    async def peek(self):
        if self._request:
            return self._request[0]
        await self.gone.wait()
        return None

    async def next_frame(self):
        return self._request.pop(0) if self._request else await self.peek()

    async def has_end(self):
        return bool(self._request)

    async def send(self, *frames):
        self.sends.append(frames)
        self.took_first.set()
        await self.taking.wait()

    async def send_error(self, error):
        await self.send((FrameKind.ERROR, error.code.encode()))

    @property
    def frames(self):
        return [frame for frames in self.sends for frame in frames]


@pytest.fixture
def executor():
    loop = ChuteLoop()
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield Executor(loop, ManualClock())
    loop.stop()
    thread.join()


def bodies(frames):
    return [payload for kind, payload in frames if kind is FrameKind.BODY]


class Streaming:
    """A chute that sends one piece, then, once that is being sent, all others at once."""

    def __init__(self, *pieces, end):
        self.pieces = pieces
        self.end = end
        self.go_on = threading.Event()
        self.posted = threading.Event()

    async def app(self, _scope, receive, send):
        await send(HEAD)
        await send(piece(self.pieces[0]))
        await asyncio.to_thread(self.go_on.wait, PATIENCE_S)
        for data in self.pieces[1:]:
            await send(piece(data))
        if self.end == "whole":
            await send(piece(b"", more=False))
        self.posted.set()
        if self.end == "failed":
            raise ValueError("half-way")
        while self.end == "left" and (await receive())["type"] != "http.disconnect":
            pass

    async def play(self, executor, peer):
        """Run the call; all but the first piece are there when the peer has taken the first."""
        executor.serve(Service(self.app, 1))
        call = asyncio.ensure_future(executor.run(peer, CALL))
        await asyncio.wait_for(peer.took_first.wait(), PATIENCE_S)
        self.go_on.set()
        assert await asyncio.to_thread(self.posted.wait, PATIENCE_S)
        return call


def piece(data, *, more=True):
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_a_piece_that_is_alone_waits_for_no_other(executor):
    """The first piece is sent, head and all, while the chute has not made the second."""
    peer, chute = Peer(), Streaming(b"one", b"two", end="whole")
    call = await chute.play(executor, peer)
    assert [kind for kind, _ in peer.sends[0]] == [FrameKind.RESPONSE, FrameKind.BODY]
    peer.taking.set()
    assert await asyncio.wait_for(call, PATIENCE_S)


async def test_pieces_that_are_ready_are_one_send_and_keep_their_borders(executor):
    """What came while the first was being sent leaves together, with the END, in order."""
    pieces = [b"%d" % number for number in range(WINDOW - 1)]
    peer, chute = Peer(), Streaming(*pieces, end="whole")
    call = await chute.play(executor, peer)
    peer.taking.set()
    assert await asyncio.wait_for(call, PATIENCE_S)
    assert len(peer.sends) == 2
    assert bodies(peer.sends[1]) == pieces[1:]
    assert peer.sends[1][-1][0] is FrameKind.END


async def test_a_failure_comes_behind_the_pieces_before_it(executor):
    """Nothing that the chute sent before it failed is lost, and the ERROR is last."""
    pieces = [b"%d" % number for number in range(5)]
    peer, chute = Peer(), Streaming(*pieces, end="failed")
    call = await chute.play(executor, peer)
    peer.taking.set()
    assert await asyncio.wait_for(call, PATIENCE_S)
    assert bodies(peer.frames) == pieces
    assert peer.frames[-1] == (FrameKind.ERROR, b"cord_failed")


async def test_large_pieces_are_not_gathered(executor):
    """No send holds more than what a long body may hold."""
    pieces = [bytes([number]) * 50_000 for number in range(6)]
    peer, chute = Peer(), Streaming(*pieces, end="whole")
    call = await chute.play(executor, peer)
    peer.taking.set()
    assert await asyncio.wait_for(call, PATIENCE_S)
    assert bodies(peer.frames) == pieces
    assert max(sum(map(len, bodies(frames))) for frames in peer.sends) <= 2 * BODY_CHUNK_BYTES


async def test_a_caller_who_leaves_behind_pieces_ends_the_call(executor):
    """Pieces that were ready are followed by the end of the call, and the place comes free."""
    peer, chute = Peer(), Streaming(b"one", b"two", b"three", end="left")
    call = await chute.play(executor, peer)
    peer.gone.set()
    peer.taking.set()
    assert await asyncio.wait_for(call, PATIENCE_S) is False
    assert FrameKind.END not in [kind for kind, _ in peer.frames]
    await asyncio.wait_for(executor.drain(PATIENCE_S), PATIENCE_S)
