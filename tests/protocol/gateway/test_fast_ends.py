"""Unusual ends of ordinary calls: nothing is left behind, and nobody else is drawn in."""

import asyncio
from dataclasses import replace

import httpx
import pytest
from gateway_stand_in import House, Incoming

from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.gateway.plane.fast import FastPath
from chutes_core.validator.gateway.plane.fast_call import FastCall

PATIENCE_S = 60.0


async def echo(call: Incoming) -> None:
    await call.answer(call.body)


@pytest.mark.parametrize("limits", [replace(GatewayLimits(), max_call_s=0.3)], ids=["limits"])
async def test_an_instance_is_not_blamed_for_a_caller_whose_paid_time_is_over(
    house: House, instance
):
    """No answer had begun: the caller hears why, pays nothing, and the instance keeps its name."""
    silent = asyncio.Event()

    async def handler(call: Incoming) -> None:
        await (call.until_left() if silent.is_set() else call.answer(b"ok"))

    house.serve(await instance(handler))
    for _ in range(20):  # leaves an idle connection, so that the data plane takes the next itself
        if (await house.post()).status_code == 200:
            break
    route = house.gateway._router.choose(house.chute.chute_id)
    blamed = route.errors
    silent.set()
    for _ in range(4):  # one more than open a breaker
        answer = await house.post()
        assert (answer.status_code, answer.json()["code"]) == (504, "paid_time_over")
    await house.quiet()
    assert route.errors <= blamed
    assert route.breaker.allows(0)
    newest = house.journal.pending(0, 100)[-1]
    assert (newest.outcome, newest.charged) == ("failed", False)


@pytest.mark.interpreted
async def test_a_record_that_fails_in_an_unforeseen_way_ends_the_call(
    house: House, instance, monkeypatch, served_by
):
    """The answer is not whole, and slot, hold and room are given back (the fixture looks)."""
    if served_by != "plane":
        pytest.skip("the reference awaits each record in the call itself")
    house.serve(await instance(echo))
    assert (await house.post(content=b"a")).text == "a"
    metering = house.gateway._metering
    records, failed = metering.record_all, []

    def fail(ended):
        failed.append(len(ended))
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(metering, "record_all", fail)
    with pytest.raises(httpx.RemoteProtocolError):
        await house.post(content=b"b")
    assert failed == [1]
    monkeypatch.setattr(metering, "record_all", records)
    await house.quiet()
    assert (await house.post(content=b"c")).text == "c"


@pytest.mark.interpreted
async def test_a_call_whose_end_fails_takes_no_other_with_it(
    house: House, instance, monkeypatch, served_by
):
    """Calls that end in one turn of the loop end on their own."""
    if served_by != "plane":
        pytest.skip("the reference ends each call by itself")
    come, all_come = [], asyncio.Event()

    async def handler(call: Incoming) -> None:
        come.append(call)
        if len(come) == 3:
            all_come.set()
        await asyncio.wait_for(all_come.wait(), PATIENCE_S)
        await call.answer(call.body)

    house.serve(await instance(handler))
    await asyncio.gather(*(house.post(content=b"warm") for _ in range(3)))  # three connections
    calls: list[FastCall] = []
    monkeypatch.setattr(FastPath, "ended", lambda path, call, loop: calls.append(call))
    asking = [asyncio.ensure_future(house.post(content=b"%d" % n)) for n in range(3)]

    async def all_ended() -> None:
        while len(calls) < 3:  # noqa: ASYNC110 - nothing tells of a call that has ended
            await asyncio.sleep(0.01)

    await asyncio.wait_for(all_ended(), PATIENCE_S)
    monkeypatch.undo()
    complete = FastCall.complete

    def failing(call: FastCall) -> None:
        if call is calls[0]:
            raise RuntimeError("unforeseen")
        complete(call)

    monkeypatch.setattr(FastCall, "complete", failing)
    path = calls[0]._path
    path._ended = list(calls)
    path._record_ended()
    done = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(each, httpx.RemoteProtocolError) for each in done) == 1
    assert sum(isinstance(each, httpx.Response) and each.is_success for each in done) == 2
    await house.quiet()
