"""Calls by an alias: the first of its chutes that can answers, and is paid alone."""

import asyncio
import json
import random
from dataclasses import replace

import httpx
import pytest
from gateway_stand_in import CORDS, House, Incoming

from chutes_core.base.units import MICROSECONDS_PER_HOUR
from chutes_core.validator.domain.accounts import Scope
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import ChuteView
from chutes_core.validator.gateway.limits import GatewayLimits

CHEAP = Rate("rate-cheap", 3_600_000_000, 60_000_000)
DEAR = Rate("rate-dear", 7_200_000_000, 120_000_000)
RICH = 10**15


def named(name: str):
    """Return a handler that answers with its name."""

    async def answer(call: Incoming) -> None:
        await call.answer(name.encode())

    return answer


async def die(call: Incoming) -> None:
    raise OSError("dead")


async def busy(call: Incoming) -> None:
    await call.error("at_capacity")


class Pair:
    """bob's alias `pair`: first the chute bob-one (cheap), then bob-two (dear)."""

    def __init__(self, house: House, instance) -> None:
        self.house, self.instance = house, instance
        self.one = house.world.chute(house.owner_id, "bob-one", rate=CHEAP)
        self.two = house.world.chute(house.owner_id, "bob-two", rate=DEAR)
        house.world.alias(house.owner_id, "pair", self.one, self.two)
        house.swap()

    async def serve(self, chute: ChuteView, handler, *, concurrency: int = 8):
        made = await self.instance(handler)
        views = self.house.world.instances.get(chute.chute_id, ())
        made_view = made.view(chute.chute_id, concurrency)
        self.house.world.instances[chute.chute_id] = (*views, made_view)
        self.house.swap()
        return made

    def records(self):
        return self.house.journal.pending(0, 100)


@pytest.fixture
def pair(house: House, instance) -> Pair:
    return Pair(house, instance)


async def test_the_first_chute_answers_while_it_can(house: House, pair: Pair):
    """By path, by user/name and by its owner's plain name an alias reaches its first chute."""
    await pair.serve(pair.one, named("one"))
    await pair.serve(pair.two, named("two"))
    by_path = await house.post("/c/bob-pair/api/echo", content=b"x")
    asked = {"model": "bob/pair", "messages": []}
    by_model = await house.post("/v1/chat/completions", json=asked)
    own = await house.post("/v1/chat/completions", json=asked | {"model": "pair"})
    for answer in (by_path, by_model, own):
        assert (answer.status_code, answer.content) == (200, b"one"), answer.text
        assert answer.headers["x-chutes-chute"] == "bob-one"
    assert [record.chute_id for record in pair.records()] == [pair.one.chute_id] * 3


async def test_a_chute_called_by_its_own_name_tells_no_other(house: House, pair: Pair):
    """Only an alias' answers name the chute: who calls a chute knows it."""
    await pair.serve(pair.one, named("one"))
    answer = await house.post("/c/bob-one/api/echo", content=b"x")
    assert "x-chutes-chute" not in answer.headers


async def test_a_cold_chute_is_passed_over_and_wanted(house: House, pair: Pair):
    """The next chute answers for a cold one, which autoscale hears of."""
    await pair.serve(pair.two, named("two"))
    await house.gateway.demand.news.wait(0)
    answer = await house.post("/c/bob-pair/api/echo", content=b"x")
    assert answer.content == b"two"
    assert answer.headers["x-chutes-chute"] == "bob-two"
    demand = house.gateway.demand.snapshot()
    assert demand[pair.one.chute_id].last_call_s > 0
    assert await house.gateway.demand.news.wait(0)
    assert all(one.in_flight == 0 for one in demand.values())


async def test_a_full_chute_is_passed_over(house: House, pair: Pair):
    """While the first chute's slots are taken, the next one answers."""
    going, begun = asyncio.Event(), asyncio.Event()

    async def slow(call: Incoming) -> None:
        begun.set()
        await going.wait()
        await call.answer(b"one")

    await pair.serve(pair.one, slow, concurrency=1)
    await pair.serve(pair.two, named("two"))
    first = asyncio.ensure_future(house.post("/c/bob-pair/api/echo", content=b"x"))
    await asyncio.wait_for(begun.wait(), 60)
    demand = house.gateway.demand
    second = await house.post("/c/bob-pair/api/echo", content=b"x")
    assert second.content == b"two"
    assert demand.snapshot()[pair.one.chute_id].in_flight == 1
    assert demand.snapshot()[pair.two.chute_id].in_flight == 0
    going.set()
    assert (await first).content == b"one"


@pytest.mark.parametrize("failing", [die, busy], ids=["dies", "busy"])
async def test_a_failing_chute_is_passed_over(house: House, pair: Pair, failing):
    """A chute whose instance gives no answer is not paid: the next one answers and is."""
    await pair.serve(pair.one, failing)
    await pair.serve(pair.two, named("two"))
    answer = await house.post("/c/bob-pair/api/echo", content=b"x")
    assert answer.content == b"two"
    (record,) = pair.records()
    assert (record.chute_id, record.rate_id) == (pair.two.chute_id, DEAR.rate_id)
    assert (record.attempts, record.outcome) == (2, "ok")


async def test_a_failing_chutes_other_instances_come_after_the_next_chute(house, pair):
    """What failed once is not insisted upon: three tries reach the first chute, and the others."""
    tried: list[str] = []

    def failing(name: str):
        async def fail(call: Incoming) -> None:
            tried.append(name)
            raise OSError("dead")

        return fail

    for _ in range(3):
        await pair.serve(pair.one, failing("one"))
    await pair.serve(pair.two, failing("two"))
    answer = await house.post("/c/bob-pair/api/echo", content=b"x")
    assert answer.status_code == 502
    assert answer.json()["code"] == "instance_failed"
    assert tried == ["one", "two", "one"]
    await house.quiet()
    assert [record.outcome for record in pair.records()] == ["failed"]
    assert house.gateway.taken_rao(house.owner_id) == 0


@pytest.mark.parametrize("limits", [GatewayLimits(first_byte_timeout_s=2.0)], ids=["short"])
async def test_a_chute_that_lets_its_time_pass_is_passed_over(house: House, pair: Pair):
    """No first byte in time: the next chute is asked, and it alone is paid."""

    async def silent(call: Incoming) -> None:
        await call.until_left()

    await pair.serve(pair.one, silent)
    await pair.serve(pair.two, named("two"))
    answer = await house.post("/c/bob-pair/api/echo", content=b"x")
    assert answer.content == b"two"
    (record,) = pair.records()
    assert (record.chute_id, record.attempts) == (pair.two.chute_id, 2)


async def test_an_error_of_the_chutes_own_is_its_answer(house: House, pair: Pair):
    """What the chute's code made of the call is passed on: its work is not done twice."""

    async def fails(call: Incoming) -> None:
        await call.answer(b"no", 500)

    await pair.serve(pair.one, fails)
    two = await pair.serve(pair.two, named("two"))
    answer = await house.post("/c/bob-pair/api/echo", content=b"x")
    assert (answer.status_code, answer.headers["x-chutes-chute"]) == (500, "bob-one")
    assert two.calls == []


async def test_after_the_first_byte_no_other_chute_is_asked(house: House, pair: Pair):
    """An answer that breaks off is cut; the next chute hears nothing of the call."""

    async def half(call: Incoming) -> None:
        await call.start()
        await call.chunk(b"half")
        raise OSError("dead")

    await pair.serve(pair.one, half)
    two = await pair.serve(pair.two, named("two"))
    with pytest.raises(httpx.RemoteProtocolError):
        await house.post("/c/bob-pair/api/echo", content=b"x")
    await house.quiet()
    assert two.calls == []
    assert [record.outcome for record in pair.records()] == ["failed"]


@pytest.mark.parametrize("limits", [GatewayLimits(cold_wait_s=60.0)], ids=["waits"])
async def test_a_caller_waits_for_whichever_chute_is_there_first(house: House, pair: Pair):
    """With all chutes cold an instance of any of them wakes the caller, who is counted once."""
    begun = asyncio.Event()
    queue = house.gateway._queue
    wait = queue.wait

    async def watched(*args):
        asyncio.get_running_loop().call_soon(begun.set)
        return await wait(*args)

    queue.wait = watched
    waiting = asyncio.ensure_future(house.post("/c/bob-pair/api/echo", content=b"x"))
    await asyncio.wait_for(begun.wait(), 60)
    assert house.gateway.stats()["waiting"] == 1
    await pair.serve(pair.two, named("two"))
    assert (await asyncio.wait_for(waiting, 60)).content == b"two"
    assert house.gateway.stats()["waiting"] == 0
    assert all(
        (one.in_flight, one.waiting) == (0, 0) for one in house.gateway.demand.snapshot().values()
    )


async def test_with_no_instance_anywhere_it_is_503(house: House, pair: Pair):
    """A call that no chute can take says why, and costs nothing."""
    answer = await house.post("/c/bob-pair/api/echo", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (503, "no_instance")
    assert house.gateway.taken_rao(house.owner_id) == 0


async def test_the_hold_covers_the_dearest_chute(house: House, pair: Pair):
    """Who cannot pay the dearest of the chutes that may answer is refused before any is asked."""
    await pair.serve(pair.one, named("one"))
    payer = house.world.payers[house.owner_id]
    house.world.payers[house.owner_id] = replace(payer, spendable_rao=DEAR.hold_rao - 1)
    house.swap()
    answer = await house.post("/c/bob-pair/api/echo", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_balance")
    assert (await house.post("/c/bob-one/api/echo", content=b"x")).status_code == 200


async def test_the_record_holds_what_the_answering_chute_holds(house: House, pair: Pair):
    """The bound of the charge is the answering chute's own, not the dearest one's."""
    await pair.serve(pair.one, named("one"))
    await house.post("/c/bob-pair/api/echo", content=b"x")
    (record,) = pair.records()
    assert (record.rao_per_hour, record.hold_rao) == (CHEAP.rao_per_hour, CHEAP.hold_rao)


async def test_each_chute_is_sent_its_own_model(house: House, pair: Pair):
    """Engines answer to their own model alone; the rest of the body is what the caller sent."""
    one = await pair.serve(pair.one, die)
    two = await pair.serve(pair.two, named("two"))
    asked = {"model": "bob/pair", "messages": [{"role": "user", "content": "é"}], "seed": 7}
    assert (await house.post("/v1/chat/completions", json=asked)).content == b"two"
    for made, chute in ((one, pair.one), (two, pair.two)):
        (call,) = made.calls
        assert json.loads(call.body) == asked | {"model": chute.name}
        assert call.headers["content-length"] == str(len(call.body))


async def test_all_but_the_models_name_reaches_a_chute_as_it_was_sent(house: House, pair: Pair):
    """Numbers of any size, members that repeat and deep nesting: nothing is written anew."""
    one = await pair.serve(pair.one, die)
    two = await pair.serve(pair.two, named("two"))
    sent = (
        b'{ "seed": 123456789012345678901234567890, "model":"%b", "top_p": 1.0,"a": 1e308 ,'
        b'"a":{"model": "other"},\t"text":"{\\"model\\":1}\\u00e9", "deep": '
        + b"[" * 300
        + b"]" * 300
        + b"}"
    )
    answer = await house.post("/v1/chat/completions", content=sent % b"bob/pair")
    assert answer.content == b"two", answer.text
    for made, chute in ((one, pair.one), (two, pair.two)):
        (call,) = made.calls
        assert call.body == sent % chute.name.encode()
        assert call.headers["content-length"] == str(len(call.body))


async def test_a_body_with_two_models_reaches_a_chute_with_one(house: House, pair: Pair):
    """The last one names the alias, both become the chute's: no engine reads another."""
    one = await pair.serve(pair.one, named("one"))
    sent = b'{"model":"%b","m\\u006fdel" : "%b"}'
    answer = await house.post("/v1/chat/completions", content=sent % (b"x", b"bob/pair"))
    assert answer.content == b"one", answer.text
    name = pair.one.name.encode()
    assert one.calls[0].body == sent % (name, name)
    refused = await house.post("/v1/chat/completions", content=b'{"model":1,"model":"bob/pair"}')
    assert (refused.status_code, refused.json()["code"]) == (422, "two_models")
    assert house.gateway.taken_rao(house.owner_id) > 0
    assert len(one.calls) == 1


async def test_a_private_chute_is_passed_over_for_others_without_a_word(house, pair, instance):
    """Another's rights count for them: what they may not see is neither called nor named."""
    stranger = house.world.user()
    auth = {"authorization": f"Bearer {house.world.key(stranger)}"}
    one = await pair.serve(pair.one, named("one"))
    await pair.serve(pair.two, named("two"))
    nothing = await house.post("/c/bob-pair/api/echo", headers=auth, content=b"x")
    unknown = await house.post("/c/bob-nobody/api/echo", headers=auth, content=b"x")
    assert nothing.status_code == unknown.status_code == 404
    assert nothing.json() == unknown.json()
    house.world.chutes[pair.two.chute_id] = replace(pair.two, public=True)
    house.swap()
    answer = await house.post("/c/bob-pair/api/echo", headers=auth, content=b"x")
    assert answer.content == b"two"
    plain = await house.post("/v1/chat/completions", headers=auth, json={"model": "pair"})
    assert plain.status_code == 404  # another's plain name
    missing = await house.post("/c/bob-pair/api/none", headers=auth, content=b"x")
    assert missing.json()["code"] == "cord_not_found"
    assert "bob-one" not in missing.text
    assert one.calls == []


async def test_a_key_reaches_what_its_scopes_cover(house: House, pair: Pair):
    """A key for one of the chutes reaches that one by the alias; one for none is refused."""
    await pair.serve(pair.one, named("one"))
    await pair.serve(pair.two, named("two"))
    only = Scope("chutes", pair.two.chute_id, "invoke")
    key = house.world.key(house.owner_id, admin=False, scopes=(only,))
    other = house.world.key(
        house.owner_id, admin=False, scopes=(Scope("chutes", house.chute.chute_id, "invoke"),)
    )
    house.swap()
    auth = {"authorization": f"Bearer {key}"}
    answer = await house.post("/c/bob-pair/api/echo", headers=auth, content=b"x")
    assert answer.content == b"two"
    auth = {"authorization": f"Bearer {other}"}
    answer = await house.post("/c/bob-pair/api/echo", headers=auth, content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (403, "scope")


async def test_a_chute_without_the_cord_is_passed_over(house: House, pair: Pair):
    """The first chute that serves what is asked answers."""
    cord = replace(CORDS[0], path="/other", public_api_path="/api/other")
    house.world.chutes[pair.one.chute_id] = replace(pair.one, cords=(cord,))
    one = await pair.serve(pair.one, named("one"))
    await pair.serve(pair.two, named("two"))
    assert (await house.post("/c/bob-pair/api/echo", content=b"x")).content == b"two"
    assert one.calls == []


async def test_an_owners_alias_goes_before_a_chute_of_its_plain_name(house: House, pair: Pair):
    """No chute that is deployed later takes over what an alias' owner calls by its name."""
    house.world.models["pair"] = pair.two.chute_id
    await pair.serve(pair.one, named("one"))
    await pair.serve(pair.two, named("two"))
    for _ in range(3):  # a head that repeats itself is not parsed again
        answer = await house.post("/v1/chat/completions", json={"model": "pair"})
        assert answer.content == b"one"


async def test_the_list_of_models_names_ones_own_aliases(house: House, pair: Pair):
    """An alias is listed for its owner, while one of its chutes may be called."""
    listed = (await house.client.get("/v1/models", headers=house.auth)).json()
    assert "pair" in [one["id"] for one in listed["data"]]
    stranger = {"authorization": f"Bearer {house.world.key(house.world.user())}"}
    house.swap()
    listed = (await house.client.get("/v1/models", headers=stranger)).json()
    assert listed["data"] == []


FATES = ("ok", "ok", "500", "raised", "busy", "dead", "half")


def fickle(rng: random.Random, name: str):
    """Return a handler that answers with its name, or fails in one of several ways."""

    async def act(call: Incoming) -> None:
        fate = rng.choice(FATES)
        if fate == "dead":
            raise OSError("dead")
        if fate in ("busy", "raised"):
            await call.error({"busy": "at_capacity", "raised": "cord_failed"}[fate])
        elif fate == "half":
            await call.start()
            await call.chunk(name.encode())
            raise OSError("dead")
        else:
            await call.answer(name.encode(), 500 if fate == "500" else 200)

    return act


RATES = (Rate("rate-1", 7_777_777_777_777, 10**11), Rate("rate-2", 1_234_567_890_123, 10**9))
PATIENT = GatewayLimits(cold_wait_s=0.0, key_burst=10**6, key_calls_per_s=10**6)


@pytest.mark.parametrize("limits", [PATIENT], ids=["bills"])
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_fails_there_is_one_charge_at_most_and_of_the_chute_that_answered(
    house: House, instance, seed: int
):
    """Random failures, cuts and cold chutes: each call has one record, by the right rate."""
    rng = random.Random(seed)
    world = house.world
    rates = (*RATES, replace(RATES[0], rate_id="rate-3", hold_rao=1))
    chutes = [world.chute(house.owner_id, f"bob-{i}", rate=rate) for i, rate in enumerate(rates)]
    by_id = {chute.chute_id: chute for chute in chutes}
    payer = world.payers[house.owner_id]
    world.payers[house.owner_id] = replace(payer, spendable_rao=RICH)
    views = {
        chute.chute_id: tuple(
            [
                (await instance(fickle(rng, chute.slug))).view(chute.chute_id, 2)
                for _ in range(rng.choice((1, 2)))
            ]
        )
        for chute in chutes
    }
    world.alias(house.owner_id, "all", *chutes)
    answered: dict[str, str] = {}

    async def caller() -> None:
        for _ in range(12):
            for chute_id, there in views.items():
                world.instances[chute_id] = there if rng.random() < 0.7 else ()
            house.swap()
            try:
                answer = await house.post("/c/bob-all/api/echo", content=b"x")
            except httpx.RemoteProtocolError:  # an answer that was cut
                continue
            if "x-chutes-chute" in answer.headers:
                assert answer.text == answer.headers["x-chutes-chute"]
                answered[answer.headers["x-chutes-invocationid"]] = answer.text

    await asyncio.gather(*(caller() for _ in range(3)))
    await house.quiet()
    records = house.journal.pending(0, 1000)
    assert len({record.invocation_id for record in records}) == len(records)
    found = {record.invocation_id: record for record in records}
    owed = 0
    for record in records:
        rate = by_id[record.chute_id].rate
        assert (record.rate_id, record.hold_rao) == (rate.rate_id, rate.hold_rao)
        assert record.launch_id in {view.launch_id for view in views[record.chute_id]}
        if record.outcome in ("ok", "client_gone", "chute_error_paid"):
            exact = -(-record.usage_us * rate.rao_per_hour // MICROSECONDS_PER_HOUR)
            owed += min(exact, rate.hold_rao)
    assert answered
    for invocation_id, slug in answered.items():
        assert by_id[found[invocation_id].chute_id].slug == slug
    assert house.gateway.taken_rao(house.owner_id) == owed
    assert all(one.in_flight == 0 for one in house.gateway.demand.snapshot().values())
