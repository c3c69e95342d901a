"""Bills: whatever instances and callers do, every charge is right to the rao."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from gateway_stand_in import House, Incoming

from chutes_core.base.units import MICROSECONDS_PER_HOUR
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.gateway import grace
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.wire.call import CallEnd
from chutes_core.wire.frames import FrameKind

LIMITS = GatewayLimits(
    cold_wait_s=0.0, key_burst=10**6, key_calls_per_s=10**6, idle_timeout_s=0.5, max_attempts=4
)
RATE = Rate("rate-x", 7_777_777_777_777, 10**12)


def owed(house: House) -> int:
    """Return what the journal's records cost, worked out here from first principles."""
    total = 0
    for record in house.journal.pending(0, 100_000):
        if record.outcome in ("ok", "client_gone", "chute_error_paid") and not record.free:
            exact = -(-record.usage_us * record.rao_per_hour // MICROSECONDS_PER_HOUR)
            total += min(exact, record.hold_rao)
    return total


def fickle_by(rng: random.Random):
    """Return a handler that answers, fails and lies at random."""

    async def streams(call: Incoming, fate: str) -> None:
        await call.start()
        for _ in range(3):
            await call.chunk(call.body)
        if fate == "half":
            raise OSError("dead")
        busy_us = 10**15 if fate == "lies" else 0
        said = CallEnd(busy_us=busy_us).model_dump_json().encode()
        await call.connection.send(FrameKind.END, said)

    async def fickle(call: Incoming) -> None:
        fate = rng.choice(("ok", "ok", "stream", "500", "raised", "busy", "dead", "half", "lies"))
        if fate == "busy":
            await call.error("at_capacity")
        elif fate == "raised":
            await call.error("cord_failed")
        elif fate == "dead":
            raise OSError("dead")
        elif fate == "500":
            await call.answer(b"the result, in truth", 500)
        elif fate == "ok":
            await call.answer(call.body)
        else:
            await streams(call, fate)

    return fickle


@pytest.mark.parametrize("limits", [LIMITS], ids=["bills"])
@pytest.mark.parametrize("seed", range(3))
async def test_every_charge_of_any_history_is_right_to_the_rao(
    house: House, instance, seed: int, tmp_path: Path
):
    """Random answers, failures, retries, stalls, cuts and a restart: the sums agree exactly."""
    rng = random.Random(seed)

    fickle = fickle_by(rng)
    instances = [await instance(fickle) for _ in range(2)]
    chute = house.world.chute(house.owner_id, "bob-bills", rate=RATE)
    payer = house.world.payers[house.owner_id]
    house.world.payers[house.owner_id] = replace(payer, spendable_rao=10**15)
    house.world.instances[chute.chute_id] = tuple(i.view(chute.chute_id, 8) for i in instances)
    house.swap()

    async def caller(number: int) -> None:
        for turn in range(15):
            cuts = rng.random() < 0.2
            body = b"%d-%d" % (number, turn)
            try:
                async with house.client.stream(
                    "POST", "/c/bob-bills/api/echo", content=body, headers=house.auth
                ) as response:
                    if not cuts:
                        await response.aread()
            except httpx.TransportError:
                continue

    await asyncio.gather(*map(caller, range(4)))
    await house.quiet()
    records = house.journal.pending(0, 100_000)
    assert len(records) > 20
    assert len({record.invocation_id for record in records}) == len(records)
    assert house.gateway.taken_rao(house.owner_id) == owed(house)

    async def nothing(scope, receive, send) -> None: ...

    again = Gateway(control=nothing, journal=house.journal, limits=LIMITS)
    assert again.taken_rao(house.owner_id) == owed(house)


@pytest.mark.parametrize("limits", [LIMITS], ids=["bills"])
@pytest.mark.parametrize("claim_us", [0, 10**3, 10**15], ids=["none", "some", "thousandfold"])
async def test_what_an_instance_claims_changes_no_charge(house: House, instance, claim_us: int):
    """Usage is the gateway's own clock: a claim of nothing, or of years, counts for nothing."""

    async def claims(call: Incoming) -> None:
        await call.start(200, (("content-length", "2"),))
        await call.chunk(b"ok")
        said = CallEnd(busy_us=claim_us).model_dump_json().encode()
        await call.connection.send(FrameKind.END, said)

    house.serve(await instance(claims))
    begun = asyncio.get_running_loop().time()
    for _ in range(3):
        assert (await house.post(content=b"x")).content == b"ok"
    took_us = (asyncio.get_running_loop().time() - begun) * 1e6
    records = house.journal.pending(0, 10)
    assert sum(record.usage_us for record in records) <= took_us
    assert all(record.usage_us > 0 for record in records)
    assert house.gateway.taken_rao(house.owner_id) == owed(house) > 0


@pytest.mark.parametrize("limits", [LIMITS], ids=["bills"])
async def test_an_instance_that_stalls_is_not_paid(house: House, instance):
    """A stream that stops half-way is the instance's failure, on a new connection and a warm."""

    async def stalls(call: Incoming) -> None:
        if call.body == b"warm":
            await call.answer(b"warm")
            return
        await call.start()
        await call.chunk(b"half")
        await call.until_left()

    house.serve(await instance(stalls))
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            await house.post(content=b"x")
        assert (await house.post(content=b"warm")).content == b"warm"
    await house.quiet()
    outcomes = [record.outcome for record in house.journal.pending(0, 10)]
    assert outcomes == ["failed", "ok", "failed", "ok"]
    assert house.gateway.taken_rao(house.owner_id) == owed(house)


@pytest.mark.parametrize("limits", [LIMITS], ids=["bills"])
async def test_work_answered_with_500_is_paid_once_the_free_minute_is_used(
    house: House, instance, monkeypatch: pytest.MonkeyPatch
):
    """A chute that hides its results in errors gets no GPU for nothing (ADR 0007)."""
    monkeypatch.setattr(grace, "ALLOWED_US", 1)

    async def hides(call: Incoming) -> None:
        await call.answer(b"the result, in truth", 500)

    house.serve(await instance(hides))
    for _ in range(3):
        response = await house.post(content=b"x")
        assert (response.status_code, response.content) == (500, b"the result, in truth")
    await house.quiet()
    outcomes = [record.outcome for record in house.journal.pending(0, 10)]
    assert outcomes == ["chute_error", "chute_error_paid", "chute_error_paid"]
    assert house.gateway.taken_rao(house.owner_id) == owed(house) > 0
