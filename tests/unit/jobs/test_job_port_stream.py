"""A caller's end of a stream to a job's port: its two directions never wait for each other."""

import asyncio

from chutes_core.validator.jobs.ports.stream import CallerEnd
from chutes_core.wire.stream import ALIVE, END, pack

PATIENCE_S = 30.0


class Caller:
    """Sends what is given, one message after the other; takes nothing before `go_on` is set."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.taken: list[bytes] = []
        self.go_on = asyncio.Event()
        self.offered = asyncio.Event()

    async def receive(self):
        return {"type": "http.request", "body": self.pieces.pop(0), "more_body": True}

    async def send(self, message):
        self.offered.set()
        await self.go_on.wait()
        self.taken.append(message["body"])


async def test_a_caller_who_takes_nothing_is_still_read_from():
    """A sign of life is not answered behind bytes that wait: what came with it passes at once."""
    caller = Caller(ALIVE + pack(b"up"), ALIVE, END)
    end = CallerEnd(caller.receive, caller.send)
    sending = asyncio.ensure_future(end.send(b"down"))
    await caller.offered.wait()
    assert await asyncio.wait_for(end.receive(), PATIENCE_S) == b"up"
    caller.go_on.set()
    await sending
    assert await end.receive() is None
    assert caller.taken == [pack(b"down"), ALIVE]


async def test_a_sign_of_life_is_answered_by_one():
    """Where nothing is on its way to the caller, silence would be taken for death."""
    caller = Caller(ALIVE + ALIVE + pack(b"up"))
    caller.go_on.set()
    assert await CallerEnd(caller.receive, caller.send).receive() == b"up"
    assert caller.taken == [ALIVE]
