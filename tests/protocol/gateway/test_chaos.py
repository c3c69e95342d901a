import asyncio
import random
from dataclasses import replace

import httpx
import pytest
from gateway_stand_in import House, Incoming

from chutes_core.validator.domain.money import Rate
from chutes_core.validator.gateway.limits import GatewayLimits

CALLERS, CALLS = 8, 20
LIMITS = GatewayLimits(cold_wait_s=0.0, key_calls_per_s=10**6, key_burst=10**6, max_attempts=4)


def fickle(rng: random.Random):
    """Return a handler that answers, refuses, breaks off, or dies."""

    async def handler(call: Incoming) -> None:
        fate = rng.random()
        if fate < 0.1:
            await call.error("at_capacity")
        elif fate < 0.15:
            raise OSError("dead")
        elif fate < 0.2:
            await call.start()
            await call.chunk(b"half")
            raise OSError("dead")
        elif fate < 0.6:
            await call.answer(call.body)
        else:
            await call.start()
            for _ in range(3):
                await call.chunk(call.body)
            await call.end()

    return handler


@pytest.mark.parametrize("limits", [LIMITS], ids=["chaos"])
@pytest.mark.parametrize("seed", [1, 2])
async def test_under_any_mixture_of_failures_the_books_agree(house: House, instance, seed: int):
    """Every whole answer is recorded once; slots, holds, bodies come back; charges add up."""
    rng = random.Random(seed)
    instances = [await instance(fickle(rng)) for _ in range(3)]
    chute = house.world.chute(house.owner_id, "bob-fickle", rate=Rate("r", 10**12, 10**11))
    house.world.instances[chute.chute_id] = tuple(i.view(chute.chute_id, 3) for i in instances)
    payer = house.world.payers[house.owner_id]  # rich: a busy machine makes every call dearer
    house.world.payers[house.owner_id] = replace(payer, spendable_rao=10**15)
    house.swap()
    whole: list[str] = []
    refused: list[int] = []

    async def caller(number: int) -> None:
        for call in range(CALLS):
            leaves = rng.random() < 0.15
            body = b"%d-%d" % (number, call)
            try:
                async with house.client.stream(
                    "POST", "/c/bob-fickle/api/echo", content=body, headers=house.auth
                ) as response:
                    if leaves:
                        continue
                    content = await response.aread()
            except httpx.RemoteProtocolError:
                continue
            if response.status_code == 200:
                assert content in (body, 3 * body)
                whole.append(response.headers["x-chutes-invocationid"])
            else:
                refused.append(response.status_code)

    await asyncio.gather(*map(caller, range(CALLERS)))
    await house.quiet()
    records = house.journal.pending(0, 10_000)
    ids = [record.invocation_id for record in records]
    assert len(set(ids)) == len(ids)
    assert set(whole) <= {record.invocation_id for record in records if record.outcome == "ok"}
    assert len(whole) > CALLERS * CALLS // 4
    assert set(refused) <= {429, 502, 503}
    owed = sum(chute.rate.charge_rao(record.usage_us) for record in records if record.charged)
    assert house.gateway.taken_rao(house.owner_id) == owed
    assert house.gateway.stats()["slots"] == 0
    demand = house.gateway.demand.snapshot()[chute.chute_id]
    assert (demand.in_flight, demand.waiting) == (0, 0)
