"""The bell that wakes miners: who waits, what rings it, and what ends a wait."""

import asyncio
from dataclasses import dataclass

from chutes_core.base.loops import Signal
from chutes_core.validator.launches.bell import Bell

LONG_S = 20.0


@dataclass(frozen=True)
class Missing:
    chute_id: str
    missing: int
    version: str = "v"


class Lists:
    def __init__(self):
        self.now = []

    def listed(self, now_s):
        return list(self.now)


class World:
    def __init__(self):
        self.lists, self.news = Lists(), Signal()
        self.bell = Bell(self.lists, self.news, lambda: 0)

    async def see(self, **missing):
        self.lists.now = [Missing(chute, count) for chute, count in missing.items()]
        self.news.set()
        await self.bell.look()

    async def waiting(self, hotkey="m"):
        """Begin a wait of a miner that knows the present number."""
        task = asyncio.ensure_future(self.bell.listen(hotkey, self.bell.number, LONG_S))
        await asyncio.sleep(0)
        return task


async def test_a_miner_that_waits_is_woken_when_more_is_wanted():
    """A chute that misses an instance, or one more of them, ends every miner's wait."""
    world = World()
    for missing in ({"a": 1}, {"a": 2}, {"a": 2, "b": 1}):
        before = world.bell.number
        waits = [await world.waiting("m1"), await world.waiting("m2")]
        await world.see(**missing)
        assert await asyncio.gather(*waits) == [before + 1] * 2


async def test_the_same_or_less_wakes_nobody():
    """A snapshot that changes nothing for miners, and one with less wanted, ring nothing."""
    world = World()
    await world.see(a=2, b=1)
    wait = await world.waiting()
    await world.see(a=2, b=1)
    await world.see(a=1)
    assert not wait.done()
    await world.see(a=2)  # more than the last time
    assert await wait == world.bell.number


async def test_who_knows_an_older_number_does_not_wait():
    """A miner that missed a ring, or asks for the first time, is answered at once."""
    world = World()
    assert await world.bell.listen("m", 0, LONG_S) == world.bell.number
    old = world.bell.number
    await world.see(a=1)
    assert await world.bell.listen("m", old, LONG_S) == old + 1


async def test_a_wait_ends_in_time():
    """Without news the same number comes back when the time is over."""
    world = World()
    assert await world.bell.listen("m", world.bell.number, 0.01) == world.bell.number


async def test_a_miner_holds_one_place():
    """Its newer call ends the older one, and each place is given back."""
    world = World()
    first = await world.waiting()
    second = await world.waiting()
    assert await first == world.bell.number
    assert not second.done()
    await world.see(a=1)
    await second
    assert not world.bell._waiting


async def test_the_end_of_the_validator_lets_everybody_go():
    """`close` ends the waits, and no later one begins."""
    world = World()
    wait = await world.waiting()
    world.bell.close()
    assert await wait == world.bell.number
    assert await world.bell.listen("m", world.bell.number, LONG_S) == world.bell.number
