"""An alias with several workers on one port: the hold is leased, the answerer is paid."""

import asyncio
from pathlib import Path

import pytest
from crewed import crewed
from gateway_stand_in import Incoming

from chutes_core.validator.domain.money import Rate

pytestmark = pytest.mark.timeout(400)
DEAR = Rate("rate-dear", 7_200_000_000, 10**12)
CHEAP = Rate("rate-cheap", 3_600_000_000, 10**9)


async def two(call: Incoming) -> None:
    await call.answer(b"two")


async def die(call: Incoming) -> None:
    raise OSError("dead")


async def test_workers_know_aliases_and_the_ledger_charges_the_chute_that_answered(
    tmp_path: Path, instance
):
    """A failing dear chute and a cheap one that answers: once in the ledger, by the cheap rate."""
    async with crewed(tmp_path) as house:
        world = house.world
        first = world.chute(house.owner_id, "bob-first", rate=DEAR)
        second = world.chute(house.owner_id, "bob-second", rate=CHEAP)
        for chute, handler in ((first, die), (second, two)):
            view = (await instance(handler)).view(chute.chute_id, 8)
            world.instances[chute.chute_id] = (view,)
        world.alias(house.owner_id, "pair", first, second)
        await house.pictures.refresh()
        before = house.balance()
        async with house.clients(4) as clients:
            calling = (one.post("/c/bob-pair/api/echo", content=b"x") for one in clients)
            answers = await asyncio.gather(*calling)
        for answer in answers:
            assert (answer.content, answer.headers["x-chutes-chute"]) == (b"two", "bob-second")
        while len(house.recorded()) < len(answers):
            await house.settle()
        records = house.store.invocations.between(0, 2**62)
        said = sorted(answer.headers["x-chutes-invocationid"] for answer in answers)
        assert sorted(house.recorded()) == said
        assert {(one.chute_id, one.hold_rao) for one in records} == {
            (second.chute_id, CHEAP.hold_rao)
        }
        owed = sum(CHEAP.charge_rao(one.usage_us) for one in records)
        assert before - house.balance() == owed
