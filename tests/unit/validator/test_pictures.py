"""A write is answered when the gateway sees it."""

import asyncio

from chutes_core.validator.domain.snapshot import Snapshot
from chutes_core.validator.pictures import FreshAfterWrites, Pictures


class Source:
    """A store that counts builds, and a gateway that remembers swaps."""

    def __init__(self):
        self.value = 0
        self.builds = 0
        self.swapped = []

    def build(self):
        self.builds += 1
        return Snapshot(drained={"w": self.value})

    def swap(self, snapshot):
        self.swapped.append(snapshot.drained["w"])


async def call(app, method="POST", path="/api_keys/"):
    """Run one request and return the statuses that were sent."""
    sent = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message["status"])

    await app({"type": "http", "method": method, "path": path}, receive, send)
    return sent


def app_of(source, status=200):
    async def app(scope, receive, send):
        source.value += 1
        await send({"type": "http.response.start", "status": status})

    pictures = Pictures(source.build, source.swap)
    return FreshAfterWrites(app, pictures, except_under="/miner/")


async def test_a_successful_write_is_in_the_snapshot_before_its_answer():
    """Whoever gets the answer can rely on it at once."""
    source = Source()
    assert await call(app_of(source)) == [200]
    assert source.swapped == [1]


async def test_reads_refusals_and_neurons_build_nothing():
    """Only what changed something costs a rebuild."""
    source = Source()
    await call(app_of(source), method="GET")
    await call(app_of(source, status=422))
    await call(app_of(source), path="/miner/launches")
    assert source.builds == 0


async def test_wishes_during_a_build_share_the_next_one():
    """Many writers at once cost two builds, not one each, and each sees its own write."""
    source = Source()
    pictures = Pictures(source.build, source.swap)

    async def write():
        source.value += 1
        seen = source.value
        await pictures.refresh()
        assert source.swapped[-1] >= seen

    await asyncio.gather(*(write() for _ in range(50)))
    assert source.builds <= 2
