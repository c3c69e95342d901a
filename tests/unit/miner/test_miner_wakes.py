"""Listening for wake-ups: what begins a round, and what is only tried again."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chutes_core.base.errors import NotFound, Unavailable
from chutes_core.base.loops import Signal
from chutes_core.miner import wakes as module
from chutes_core.miner.discovery import Validator
from chutes_core.miner.wakes import Wakes

WAIT_S = 60.0


class Api:
    """Answers what the test puts in, by validator."""

    def __init__(self):
        self.answers: dict[str, asyncio.Queue] = {}
        self.asked: list[tuple[str, int]] = []

    async def wake(self, validator, after):
        self.asked.append((validator.hotkey, after))
        answer = await self.answers.setdefault(validator.hotkey, asyncio.Queue()).get()
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    def __init__(self, *hotkeys):
        self.api, self.again = Api(), Signal()
        self.validators = [self.validator(hotkey) for hotkey in hotkeys]
        self.wakes = Wakes(self.api, lambda: self.validators, self.again)

    @staticmethod
    def validator(hotkey, stake=1):
        return Validator(hotkey, f"http://{hotkey}", stake)

    def answer(self, hotkey, answer):
        self.api.answers.setdefault(hotkey, asyncio.Queue()).put_nowait(answer)

    async def asked(self, count):
        """Listen until so many calls were made."""
        while len(self.api.asked) < count:
            await asyncio.wait_for(self.wakes.listen(), WAIT_S)


async def closing(world):
    """End a listening as the loop's end does."""
    task = asyncio.ensure_future(world.wakes.listen())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_another_number_begins_a_round_and_the_first_does_not():
    """The first answer only says where the count stands; a later one that differs wakes."""
    world = World("v")
    world.answer("v", 7)
    await world.asked(2)
    assert not await world.again.wait(0)
    world.answer("v", 7)  # the time was over
    await world.asked(3)
    assert not await world.again.wait(0)
    world.answer("v", 8)
    await world.asked(4)
    assert await world.again.wait(0)
    assert [after for _, after in world.api.asked] == [0, 7, 7, 8]
    await closing(world)


async def test_validators_are_listened_to_side_by_side_and_those_gone_no_more(monkeypatch):
    """One that is silent keeps nobody from hearing another; one that left is not asked again."""
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    world = World("v", "w")
    world.answer("w", 3)
    await world.asked(3)
    world.answer("w", 4)
    await world.asked(4)
    assert await world.again.wait(0)
    world.validators = [world.validator("w", stake=2)]
    asked = len(world.api.asked)
    await world.asked(asked + 1)
    assert {hotkey for hotkey, _ in world.api.asked[asked:]} == {"w"}
    await closing(world)


@pytest.mark.parametrize(
    "error", [Unavailable("peer_unreachable", "no"), NotFound("not_found", "an older validator")]
)
async def test_a_validator_that_does_not_answer_is_asked_again_later(monkeypatch, error):
    """An error is no news and no failure; the call is made again after a pause."""
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    monkeypatch.setattr(module, "UNKNOWN_RETRY_S", 0.0)
    world = World("v")
    world.answer("v", error)
    await world.asked(2)
    assert not await world.again.wait(0)
    await closing(world)


async def test_the_end_of_listening_leaves_no_call_behind():
    """A cancelled listening has ended its calls."""
    world = World("v")
    world.answer("v", 1)
    await world.asked(2)
    task = asyncio.ensure_future(world.wakes.listen())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert all(call.done() for call in world.wakes._calls.values())


class Time:
    """A clock that goes on while somebody sleeps, and alone then."""

    def __init__(self):
        self.now_us = 0

    def monotonic_us(self):
        return self.now_us

    async def sleep(self, seconds):
        self.now_us += max(1, round(seconds * 1e6))


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 3)), min_size=1, max_size=60))
def test_a_validator_begins_so_many_rounds_whatever_it_answers(answers):
    """In any time there are `BURST` rounds and `PER_S` a second more, and none is lost."""

    async def play():
        time, api, again = Time(), Api(), Signal()
        wakes = Wakes(api, tuple, again, clock=time, sleep=time.sleep)
        validator, rounds, seen = World.validator("v"), [], 0
        for pause_s, number in [(0, 1), *answers]:
            time.now_us += round(pause_s * 1e6)
            api.answers.setdefault("v", asyncio.Queue()).put_nowait(number)
            await wakes._one(validator)
            if await again.wait(0):
                rounds.append(time.now_us)
            seen = number
        assert wakes._numbers["v"] == seen
        for first, began_us in enumerate(rounds):
            for count, ended_us in enumerate(rounds[first:], 1):
                passed_s = (ended_us - began_us) / 1e6
                assert count <= module.BURST + 1 + passed_s * module.PER_S
        return len(rounds)

    changes = sum(1 for (_, a), (_, b) in pairwise([(0, 1), *answers]) if a != b)
    assert asyncio.run(play()) == changes


async def test_a_validator_that_answers_at_once_is_not_asked_at_once_again():
    """Answers without news, and without the wait that was asked for, come no faster either."""
    time, api = Time(), Api()
    wakes = Wakes(api, tuple, Signal(), clock=time, sleep=time.sleep)
    for _ in range(module.BURST + 10):
        api.answers.setdefault("v", asyncio.Queue()).put_nowait(7)
        await wakes._one(World.validator("v"))
    assert time.now_us >= 10 * 1_000_000 // module.PER_S
