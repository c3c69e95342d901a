"""What an instance claims changes no bill: calls are paid by the gateway's own clock."""

import asyncio
import json

import httpx
import pytest
from gateway_stand_in import House, Incoming

from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.gateway.limits import GatewayLimits

CHAT = json.dumps({"model": "model/bob-echo", "messages": [{"role": "user", "content": "hi"}]})
STREAM = (("content-type", "text/event-stream"),)


@pytest.fixture
def limits() -> GatewayLimits:
    return GatewayLimits(cold_wait_s=0.0, idle_timeout_s=60.0)


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


async def one_record(house: House) -> Invocation:
    await house.quiet()
    (record,) = house.journal.pending(0, 9)
    return record


def price_of_time(record: Invocation) -> int:
    rate = Rate(record.rate_id, record.rao_per_hour, record.hold_rao)
    return rate.charge_rao(record.usage_us)


async def streamed(call: Incoming, usage: object) -> None:
    await call.start(headers=STREAM)
    for word in ("a", "b", "c"):
        await call.chunk(event({"choices": [{"delta": {"content": word}}], "usage": None}))
    if usage is not None:
        await call.chunk(event({"choices": [], "usage": usage}))
    await call.chunk(b"data: [DONE]\n\n")
    await call.end()


async def test_the_tokens_of_a_stream_are_recorded(house: House, instance):
    """What the last event says stands in the record, beside the time that is paid for."""

    async def honest(call: Incoming) -> None:
        await streamed(call, {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8})

    house.serve(await instance(honest))
    answer = await house.post("/v1/chat/completions", content=CHAT)
    assert answer.status_code == 200
    record = await one_record(house)
    assert (record.prompt_tokens, record.completion_tokens) == (5, 3)
    assert house.gateway.taken_rao(house.owner_id) == price_of_time(record)


async def test_the_tokens_of_a_whole_answer_are_recorded(house: House, instance):
    """An answer with a Content-Length counts as a stream does."""

    async def whole(call: Incoming) -> None:
        body = json.dumps({"usage": {"prompt_tokens": 5, "completion_tokens": 3}}).encode()
        await call.answer(body, headers=(("content-type", "application/json"),))

    house.serve(await instance(whole))
    await house.post("/v1/chat/completions", content=CHAT)
    record = await one_record(house)
    assert (record.prompt_tokens, record.completion_tokens) == (5, 3)


async def test_a_claim_of_a_thousand_times_the_usage_gains_nothing(house: House, instance):
    """It is capped by the bytes that passed, and the charge is that of the time as before."""

    async def greedy(call: Incoming) -> None:
        await streamed(call, {"prompt_tokens": 5_000_000, "completion_tokens": 3_000_000})

    house.serve(await instance(greedy))
    answer = await house.post("/v1/chat/completions", content=CHAT)
    record = await one_record(house)
    assert record.prompt_tokens == len(CHAT) == record.bytes_in
    assert record.completion_tokens == len(answer.content) == record.bytes_out
    assert house.gateway.taken_rao(house.owner_id) == price_of_time(record) <= record.hold_rao


async def test_an_instance_that_claims_nothing_is_paid_by_time_all_the_same(house: House, instance):
    """No claim, no tokens; an error's claim is not believed either."""

    async def silent(call: Incoming) -> None:
        await streamed(call, None)

    house.serve(await instance(silent))
    assert (await house.post("/v1/chat/completions", content=CHAT)).status_code == 200
    record = await one_record(house)
    assert (record.prompt_tokens, record.completion_tokens) == (None, None)
    assert (record.outcome, record.charged) == ("ok", True)


async def test_the_claim_of_a_refusal_is_not_believed(house: House, instance):
    """A 4xx of the chute's has used no tokens."""

    async def refusing(call: Incoming) -> None:
        await call.answer(b'{"usage":{"prompt_tokens":5,"completion_tokens":3}}', 422)

    house.serve(await instance(refusing))
    assert (await house.post("/v1/chat/completions", content=CHAT)).status_code == 422
    assert (await one_record(house)).prompt_tokens is None


@pytest.mark.parametrize("limits", [GatewayLimits(cold_wait_s=0.0, idle_timeout_s=0.5)])
async def test_an_instance_that_stalls_is_not_paid(house: House, instance):
    """It claims its usage, then stops without an end: the answer is cut, and costs nothing."""

    async def stalling(call: Incoming) -> None:
        await call.start(headers=STREAM)
        await call.chunk(event({"usage": {"prompt_tokens": 5, "completion_tokens": 3}}))
        await asyncio.Event().wait()

    house.serve(await instance(stalling))
    with pytest.raises(httpx.TransportError):
        await house.post("/v1/chat/completions", content=CHAT)
    record = await one_record(house)
    assert (record.outcome, record.charged) == ("failed", False)
    assert record.prompt_tokens is None
    assert house.gateway.taken_rao(house.owner_id) == 0


async def test_other_cords_keep_no_tail(house: House, instance):
    """Only OpenAI-style cords count tokens."""

    async def telling(call: Incoming) -> None:
        await call.answer(b'{"usage":{"prompt_tokens":5,"completion_tokens":3}}')

    house.serve(await instance(telling))
    await house.post(content=b"x")
    assert (await one_record(house)).prompt_tokens is None
