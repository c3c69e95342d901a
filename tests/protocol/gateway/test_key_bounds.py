"""What a key is bound to, at the gateway's door: its time, its budget, its rate, its life."""

import asyncio
import time
from dataclasses import replace

import pytest
from gateway_stand_in import House, Incoming

from chutes_core.validator.domain.money import Rate


async def echo(call: Incoming) -> None:
    await call.answer(call.body)


def said(response):
    return response.status_code, response.json()["code"]


@pytest.fixture
def bound(house: House):
    """Return a maker of keys of the owner with bounds; gives headers and the key's hash."""

    def make(**bounds: object) -> tuple[dict[str, str], str]:
        text = house.world.key(house.owner_id)
        hashed = list(house.world.keys)[-1]
        house.world.keys[hashed] = replace(house.world.keys[hashed], **bounds)
        house.swap()
        return {"x-api-key": text}, hashed

    return make


async def test_an_expired_key_is_401(house: House, instance, bound):
    """A key works until its time and is refused from then on, on every path."""
    house.serve(await instance(echo))
    now_s = int(time.time())
    young, _ = bound(expires_at_s=now_s + 3600)
    old, _ = bound(expires_at_s=now_s - 1)
    assert (await house.post(headers=young)).status_code == 200
    assert said(await house.post(headers=old)) == (401, "key_expired")
    models = await house.client.get("/v1/models", headers=old)
    assert said(models) == (401, "key_expired")
    assert models.json()["hint"]


async def test_a_spent_budget_is_402(house: House, instance, bound):
    """Calls are refused once the key's budget does not cover another; other keys go on."""
    begun, go = asyncio.Semaphore(0), asyncio.Event()

    async def slow(call: Incoming) -> None:
        begun.release()
        await go.wait()
        await call.answer()

    house.world.chutes[house.chute.chute_id] = replace(
        house.chute, rate=Rate("r", 3600, 60)
    )  # a rao a second, sixty set aside
    house.serve(await instance(slow))
    headers, hashed = bound(budget_rao=100)
    first = asyncio.ensure_future(house.post(headers=headers))
    await asyncio.wait_for(begun.acquire(), 60)
    refused = await house.post(headers=headers)
    assert said(refused) == (402, "key_budget_spent")
    assert refused.json()["hint"]
    go.set()
    assert (await first).status_code == 200
    assert (await house.post(headers=headers)).status_code == 200
    house.world.keys[hashed] = replace(house.world.keys[hashed], spent_rao=41)
    house.swap()
    assert said(await house.post(headers=headers)) == (402, "key_budget_spent")
    assert (await house.post()).status_code == 200


async def test_a_keys_own_rate_is_429_with_the_time_to_wait(house: House, instance, bound):
    """A key that may make two calls a minute hears after the second when to come again."""
    house.serve(await instance(echo))
    headers, _ = bound(calls_per_minute=2)
    for _ in range(2):
        assert (await house.post(headers=headers)).status_code == 200
    response = await house.post(headers=headers)
    assert said(response) == (429, "rate_limited")
    assert 1 <= int(response.headers["retry-after"]) <= 30
    assert (await house.post()).status_code == 200


async def test_a_revoked_key_is_dead_with_the_next_picture(house: House, instance, bound):
    """No call of a key passes once the snapshot lacks it."""
    house.serve(await instance(echo))
    headers, hashed = bound()
    assert (await house.post(headers=headers)).status_code == 200
    del house.world.keys[hashed]
    house.swap()
    assert said(await house.post(headers=headers)) == (401, "bad_key")
