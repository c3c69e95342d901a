"""The command's end of a tunnel: what keeps it alive does not get between its bytes."""

import asyncio

from chutes_core.cli.tunnel import TunnelEnd
from chutes_core.wire.stream import ALIVE, pack


class OneAtATime:
    """A writer that takes nothing before `go_on` is set, and knows who waits for it."""

    def __init__(self):
        self.written = []
        self.waiting = 0
        self.most_waiting = 0
        self.go_on = asyncio.Event()
        self.offered = asyncio.Event()

    def write(self, data):
        self.written.append(data)
        self.offered.set()

    async def drain(self):
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        await self.go_on.wait()
        self.waiting -= 1


async def test_a_sign_of_life_waits_for_bytes_that_are_being_sent():
    """Two tasks that wait for one writer at once are an error in some Pythons."""
    writer = OneAtATime()
    tunnel = TunnelEnd(asyncio.StreamReader(), writer, b"")
    sending = asyncio.ensure_future(tunnel.send(b"bytes"))
    await writer.offered.wait()
    alive = asyncio.ensure_future(tunnel.keep_alive(0))
    for _ in range(8):
        await asyncio.sleep(0)
    assert writer.written == [pack(b"bytes")]
    writer.offered.clear()
    writer.go_on.set()
    await sending
    await writer.offered.wait()
    alive.cancel()
    await asyncio.gather(alive, return_exceptions=True)
    assert writer.written[:2] == [pack(b"bytes"), ALIVE]
    assert writer.most_waiting == 1
