import re

import pytest
from gateway_stand_in import House, Incoming

from chutes_core.validator.gateway.limits import GatewayLimits

WAITED = re.compile(r"queue;dur=\d+\.\d{3}, first_byte;dur=\d+\.\d{3}")
TOTAL = re.compile(r"total;dur=\d+\.\d{3}")


@pytest.fixture
def limits() -> GatewayLimits:
    return GatewayLimits(cold_wait_s=0.0, key_calls_per_s=1, key_burst=3)


async def echo(call: Incoming) -> None:
    await call.answer(call.body)


async def test_an_answer_tells_what_is_left_of_the_rate(house: House, instance):
    """Each answer names the limit, the calls left, and the seconds until all are back."""
    house.serve(await instance(echo))
    answers = [await house.post(content=b"x") for _ in range(3)]
    assert [a.status_code for a in answers] == [200, 200, 200]
    assert {a.headers["x-ratelimit-limit"] for a in answers} == {"3"}
    left = [int(a.headers["x-ratelimit-remaining"]) for a in answers]
    assert left[0] == 2
    assert all(0 <= one <= 2 for one in left)
    assert all(1 <= int(a.headers["x-ratelimit-reset"]) <= 3 for a in answers)


async def test_too_many_calls_are_429_with_a_reason_and_a_time(house: House, instance):
    """The refusal says which limit it was, when to come again, and where the key stands."""
    house.serve(await instance(echo))
    refused = None
    for _ in range(200):
        answer = await house.post(content=b"x")
        if answer.status_code == 429:
            refused = answer
            break
    assert refused is not None
    assert refused.json()["code"] == "rate_limited"
    assert "a second" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-ratelimit-limit"] == "3"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert int(refused.headers["x-ratelimit-reset"]) >= 1
    assert TOTAL.fullmatch(refused.headers["x-chutes-timing"])


async def test_an_answer_tells_how_long_it_waited(house: House, instance):
    """A chute's answer tells its wait and its first byte, one of the gateway's its total."""
    house.serve(await instance(echo))
    for _ in range(2):  # on a new connection to the instance, then on a pooled one
        answer = await house.post(content=b"x")
        assert WAITED.fullmatch(answer.headers["x-chutes-timing"])
    missing = await house.post("/c/bob-echo/api/none", content=b"x")
    assert missing.status_code == 404
    assert TOTAL.fullmatch(missing.headers["x-chutes-timing"])
    assert "x-ratelimit-remaining" in missing.headers


async def test_a_chute_cannot_tell_it_in_the_gateways_place(house: House, instance):
    """What an instance says of rate and timing is dropped."""

    async def boasting(call: Incoming) -> None:
        more = (("X-RateLimit-Limit", "9999"), ("X-Chutes-Timing", "queue;dur=0"))
        await call.answer(b"", headers=more)

    house.serve(await instance(boasting))
    answer = await house.post(content=b"x")
    assert answer.headers.get_list("x-ratelimit-limit") == ["3"]
    assert len(answer.headers.get_list("x-chutes-timing")) == 1
    assert WAITED.fullmatch(answer.headers["x-chutes-timing"])


async def test_who_shows_no_key_learns_nothing_of_rates(house: House):
    """Without a key there is no rate to tell of."""
    answer = await house.post(headers={}, content=b"x")
    assert answer.status_code == 401
    assert "x-ratelimit-limit" not in answer.headers
