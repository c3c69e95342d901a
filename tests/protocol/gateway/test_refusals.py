import asyncio
import json
from dataclasses import replace

import httpx
import pytest
from gateway_stand_in import House, Incoming

from chutes_core.base.failures import MAX_FAILURES
from chutes_core.validator.domain.accounts import Scope
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import FreeCalls
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.limits import GatewayLimits


async def echo(call: Incoming) -> None:
    await call.answer(call.body)


def said(response: httpx.Response) -> tuple[int, str]:
    """Check the form that every refusal has; return its status and code."""
    document = response.json()
    assert set(document) == {"detail", "code", "hint"}
    assert document["detail"]
    assert response.headers["x-chutes-invocationid"]
    return response.status_code, document["code"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer nonsense"},
        {"authorization": f"Bearer cpk_{'0' * 32}.{'0' * 32}.{'a' * 32}"},
        {"authorization": "Digest x"},
        {"x-api-key": "nonsense"},
    ],
)
async def test_no_valid_key_is_401(house: House, headers: dict[str, str]):
    """A missing, malformed or unknown key is 401 on each of the four forms."""
    for path in (
        "/c/bob-echo/api/echo",
        "/v1/chat/completions",
        f"/chutes/{house.chute.chute_id}/echo",
    ):
        status, code = said(await house.post(path, headers=headers))
        assert status == 401
        assert code in ("no_key", "bad_key")
    assert said(await house.client.get("/v1/models", headers=headers))[0] == 401


async def test_an_address_that_guesses_keys_is_429(house: House, instance):
    """After MAX_FAILURES wrong keys from one address the next is 429; a right key still passes."""
    house.serve(await instance(echo))
    guess = {"x-api-key": "nonsense"}
    for _ in range(MAX_FAILURES):
        assert said(await house.post(headers=guess)) == (401, "bad_key")
    for _ in range(MAX_FAILURES):  # a few were refilled meanwhile
        answer = await house.post(headers=guess)
        if answer.status_code != 401:
            break
    assert said(answer) == (429, "too_many_failures")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await house.post()).status_code == 200


async def test_every_form_of_presenting_a_key_is_accepted(house: House, instance):
    """Bearer, Basic, the bare key and X-API-Key are the same key."""
    house.serve(await instance(echo))
    for headers in (
        {"authorization": f"Bearer {house.key}"},
        {"authorization": f"Basic {house.key}"},
        {"authorization": house.key},
        {"x-api-key": house.key},
    ):
        assert (await house.post(headers=headers)).status_code == 200


async def test_a_key_whose_ids_do_not_fit_its_secret_is_401(house: House):
    """Key id and user id of the text are checked, not only the secret."""
    other = house.world.key(house.world.user())
    mixed = ".".join((other.rsplit(".", 1)[0], house.key.rsplit(".", 1)[1]))
    assert said(await house.post(headers={"x-api-key": mixed})) == (401, "bad_key")


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        ((), 403),
        ((Scope("images"),), 403),
        ((Scope("chutes", None, "read"),), 403),
        ((Scope("chutes", "another", "invoke"),), 403),
        ((Scope("chutes", None, "invoke"),), 200),
        ((Scope("invocations"),), 200),
        ((Scope("chutes", "own", None),), 200),
    ],
)
async def test_scopes_decide_what_a_key_may_call(house: House, instance, scopes, status):
    """A key calls only what one of its scopes names; otherwise 403."""
    named = tuple(
        Scope(
            s.object_type, house.chute.chute_id if s.object_id == "own" else s.object_id, s.action
        )
        for s in scopes
    )
    key = house.world.key(house.owner_id, admin=False, scopes=named)
    house.serve(await instance(echo))
    response = await house.post(headers={"x-api-key": key})
    assert response.status_code == status
    if status == 403:
        assert said(response) == (403, "scope")


async def test_a_private_chute_looks_like_none(house: House, instance):
    """Who may not see a chute hears exactly what one hears of a chute that does not exist."""
    house.serve(await instance(echo))
    stranger = {"x-api-key": house.world.key(house.world.user())}
    house.swap()
    hidden = await house.post(headers=stranger)
    absent = await house.post("/c/nobody-none/api/echo", headers=stranger)
    assert said(hidden) == said(absent) == (404, "chute_not_found")
    assert hidden.content == absent.content


async def test_public_and_shared_chutes_are_open_to_others(house: House, instance):
    """Public for all, shared for those named."""
    friend = house.world.user()
    one = await instance(echo)
    shared = house.world.chute(house.owner_id, "bob-shared", shared_with=frozenset((friend,)))
    public = house.world.chute(house.owner_id, "bob-public", public=True)
    for chute in (shared, public):
        house.world.instances[chute.chute_id] = (one.view(chute.chute_id),)
    headers = {"x-api-key": house.world.key(friend)}
    house.swap()
    for slug in ("bob-shared", "bob-public"):
        assert (await house.post(f"/c/{slug}/api/echo", headers=headers)).status_code == 200
    assert {i.user_id for i in house.journal.pending(0, 9)} == {friend}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/c/bob-echo/api/echo"),
        ("POST", "/c/bob-echo/api/look"),
        ("POST", "/c/bob-echo/echo"),
        ("POST", "/c/bob-echo/api/echo/"),
        ("POST", "/c/bob-echo"),
    ],
)
async def test_what_is_no_cord_is_404(house: House, method: str, path: str):
    """Only the cords' own paths and methods reach an instance."""
    response = await house.client.request(method, path, headers=house.auth)
    assert said(response) == (404, "cord_not_found")
    assert "POST /api/echo" in response.json()["hint"]


async def test_an_unknown_model_is_404_and_none_is_422(house: House):
    """The model must be named, and known."""
    unknown = await house.post("/v1/chat/completions", json={"model": "no/such"})
    assert said(unknown) == (404, "chute_not_found")
    for body in (b"", b"[]", b"{}", b'{"model": 1}', b"\xff"):
        response = await house.post("/v1/chat/completions", content=body)
        assert said(response) == (422, "no_model")


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (b"\x80\x04K\x01.", "application/octet-stream", (415, "pickled_arguments")),
        (json.dumps({"args": "gASV", "kwargs": "gASV"}).encode(), "application/json", None),
        (b"{}", "text/plain", (415, "unsupported_media_type")),
        (b"[]", "application/json", (422, "bad_arguments")),
        (b'{"args": {}}', "application/json", (422, "bad_arguments")),
    ],
)
async def test_a_pickled_cord_call_is_415_with_a_hint(house: House, content, kind, expected):
    """The public SDK's pickled arguments are refused unread."""
    response = await house.post(
        f"/chutes/{house.chute.chute_id}/echo",
        content=content,
        headers=house.auth | {"content-type": kind},
    )
    assert said(response) == (expected or (415, "pickled_arguments"))
    assert "JSON" in response.json()["hint"]


async def test_a_body_over_the_limit_is_413(house: House, instance):
    """With a content-length it is refused at once, without one as soon as it is too long."""
    one = await instance(echo)
    house.serve(one)
    assert said(await house.post(content=bytes(300_001))) == (413, "body_too_large")

    async def chunks():
        for _ in range(5):
            yield bytes(100_000)

    assert said(await house.post(content=chunks())) == (413, "body_too_large")
    assert one.calls == []
    assert (await house.post(content=bytes(300_000))).status_code == 200


async def test_without_balance_it_is_402_and_nothing_is_called(house: House, instance):
    """The hold of one call must be covered before it is made."""
    one = await instance(echo)
    poor = house.world.user(spendable_rao=59_999_999)
    chute = house.world.chute(poor, "amy-poor")
    house.world.instances[chute.chute_id] = (one.view(chute.chute_id),)
    headers = {"x-api-key": house.world.key(poor)}
    house.swap()
    response = await house.post("/c/amy-poor/api/echo", headers=headers)
    assert said(response) == (402, "insufficient_balance")
    assert one.calls == []


async def test_the_free_calls_of_a_day_are_counted(house: House, instance):
    """After the day's free calls a call is paid for, or refused with the time of the next day."""
    house.serve(await instance(echo))
    free = house.world.user(spendable_rao=0, free=True)
    chute = house.world.chute(free, "val-free")
    house.world.instances[chute.chute_id] = house.world.instances[house.chute.chute_id]
    headers = {"x-api-key": house.world.key(free)}
    quota = FreeCalls(2, 2, 1_700_006_400)
    house.world.payers[free] = replace(house.world.payers[free], free_calls=quota)
    house.swap()
    path = "/c/val-free/api/echo"
    assert [(await house.post(path, headers=headers)).status_code for _ in range(2)] == [200, 200]
    refused = await house.post(path, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (402, "free_calls_spent")
    assert "2023-11-15T00:00:00Z" in refused.json()["detail"]
    house.world.payers[free] = replace(house.world.payers[free], spendable_rao=10**9)
    house.swap()
    assert (await house.post(path, headers=headers)).status_code == 200
    await house.quiet()
    records = house.journal.pending(0, 10)
    assert [(one.free, one.hold_rao > 0) for one in records] == [
        (True, False),
        (True, False),
        (False, True),
    ]


async def test_free_accounts_need_no_balance(house: House, instance):
    """Linked validators call without a hold, and their records say so."""
    one = await instance(echo)
    free = house.world.user(spendable_rao=0, free=True)
    chute = house.world.chute(free, "val-free")
    house.world.instances[chute.chute_id] = (one.view(chute.chute_id),)
    headers = {"x-api-key": house.world.key(free)}
    house.swap()
    assert (await house.post("/c/val-free/api/echo", headers=headers)).status_code == 200
    (record,) = house.journal.pending(0, 9)
    assert (record.free, record.charged, record.hold_rao) == (True, False, 0)


async def test_holds_of_concurrent_calls_add_up(house: House, instance):
    """Two calls that the balance covers run side by side; a third is refused until one ends."""
    begun, go = asyncio.Semaphore(0), asyncio.Event()

    async def handler(call: Incoming) -> None:
        begun.release()
        await go.wait()
        await call.answer()

    one = await instance(handler)
    user = house.world.user(spendable_rao=250)
    chute = house.world.chute(user, "amy-two", rate=Rate("r", 1_000, 100))
    house.world.instances[chute.chute_id] = (one.view(chute.chute_id),)
    headers = {"x-api-key": house.world.key(user)}
    house.swap()
    path = "/c/amy-two/api/echo"
    running = [asyncio.ensure_future(house.post(path, headers=headers)) for _ in range(2)]
    for _ in running:
        await asyncio.wait_for(begun.acquire(), 60)
    assert house.gateway.taken_rao(user) == 200
    assert said(await house.post(path, headers=headers))[0] == 402
    go.set()
    assert [(await one).status_code for one in running] == [200, 200]
    charged = house.gateway.taken_rao(user)
    assert charged == 2  # two calls of well under a second at 1000 rao an hour, rounded up
    assert (await house.post(path, headers=headers)).status_code == 200
    house.world.drained["w1"] = 2
    house.swap()
    assert house.gateway.taken_rao(user) == 1


async def test_a_hold_is_checked_against_the_balance_after_the_upload(house: House, instance):
    """A balance that a slow upload saw at its beginning is not spent again at its end."""
    one = await instance(echo)
    user = house.world.user(spendable_rao=20)
    chute = house.world.chute(user, "amy-slow", rate=Rate("r", 3600, 20))
    house.world.instances[chute.chute_id] = (one.view(chute.chute_id),)
    headers = {"x-api-key": house.world.key(user)}
    house.swap()
    assert (await house.post("/c/amy-slow/api/echo", headers=headers)).status_code == 200
    assert house.gateway.taken_rao(user) == 1  # one rao a second, rounded up
    uploading, drained = asyncio.Event(), asyncio.Event()

    async def body():
        yield b'{"model": '
        uploading.set()
        await drained.wait()
        yield b'"model/amy-slow"}'

    slow = asyncio.ensure_future(
        house.post("/v1/chat/completions", content=body(), headers=headers)
    )
    await asyncio.wait_for(uploading.wait(), 60)
    await house.client.get("/v1/models", headers=headers)  # the upload has begun by now
    house.world.payers[user] = replace(house.world.payers[user], spendable_rao=19)
    house.world.drained["w1"] = 1
    house.swap()
    drained.set()
    assert said(await slow) == (402, "insufficient_balance")


async def test_charges_not_yet_drained_count_after_a_restart(house: House, instance, tmp_path):
    """A new gateway on the same journal still sees what the old one charged."""
    house.serve(await instance(echo))
    await house.post()
    charged = house.gateway.taken_rao(house.owner_id)
    assert charged > 0

    async def nothing(scope: object, receive: object, send: object) -> None:
        raise AssertionError

    copy = Journal(tmp_path / "again", "w1")
    for record in house.journal.pending(0, 9):
        copy.append(record)
    copy.close()
    journal = Journal(tmp_path / "again", "w1")
    again = Gateway(control=nothing, journal=journal)
    assert again.taken_rao(house.owner_id) == charged
    house.world.drained["w1"] = 1
    again.swap(house.world.snapshot())
    assert again.taken_rao(house.owner_id) == 0
    journal.close()


@pytest.mark.parametrize("limits", [GatewayLimits(key_calls_per_s=1, key_burst=2)], ids=["slow"])
async def test_too_many_calls_of_one_key_are_429(house: House, instance):
    """The burst passes, the next call is told when to come again; another key is untouched."""
    house.serve(await instance(echo))
    other = {"x-api-key": house.world.key(house.owner_id)}
    house.swap()
    for _ in range(2):
        assert (await house.post()).status_code == 200
    response = await house.post()
    assert said(response) == (429, "rate_limited")
    assert response.headers["retry-after"] == "1"
    assert (await house.post(headers=other)).status_code == 200


async def test_a_cold_chute_is_503_with_its_reason(house: House):
    """No instance in time: the caller hears why, and that it may come again."""
    response = await house.post()
    assert said(response) == (503, "no_instance")
    assert "no GPU is free" in response.json()["detail"]
    assert int(response.headers["retry-after"]) > 0
    assert house.gateway.demand.snapshot()[house.chute.chute_id].last_call_s > 0
    assert house.gateway.taken_rao(house.owner_id) == 0


@pytest.mark.parametrize("limits", [GatewayLimits(max_waiting_per_chute=2)], ids=["queue"])
async def test_callers_of_a_cold_chute_wait_for_its_first_instance(house: House, instance):
    """Waiting callers are demand; an instance wakes them; one too many is refused."""
    one = await instance(echo)
    queueing = house.queueing()
    waiting = [asyncio.ensure_future(house.post(content=b"x")) for _ in range(2)]
    for _ in waiting:
        await asyncio.wait_for(queueing.acquire(), 60)
    demand = house.gateway.demand.snapshot()[house.chute.chute_id]
    assert (demand.waiting, demand.in_flight) == (2, 0)
    assert said(await house.post()) == (429, "queue_full")
    house.serve(one, concurrency=1)
    assert [(await response).content for response in waiting] == [b"x", b"x"]
    demand = house.gateway.demand.snapshot()[house.chute.chute_id]
    assert (demand.waiting, demand.in_flight) == (0, 0)


@pytest.mark.parametrize("limits", [GatewayLimits()], ids=["defaults"])
async def test_a_caller_who_leaves_the_queue_is_forgotten(house: House):
    """Leaving while waiting frees the place and the hold, and leaves no record."""
    queueing = house.queueing()
    asking = asyncio.ensure_future(house.post())
    await asyncio.wait_for(queueing.acquire(), 60)
    asking.cancel()
    await asyncio.wait((asking,))
    await house.quiet()
    assert house.gateway.stats()["waiting"] == 0
    assert house.gateway.taken_rao(house.owner_id) == 0
    assert house.journal.last_sequence == 0


async def test_a_websocket_is_refused_with_a_reason(house: House):
    """An invocation over a websocket is answered 501 where the server can send it."""
    sent = []
    scope = {
        "type": "websocket",
        "path": "/c/bob-echo/api/echo",
        "headers": [],
        "extensions": {"websocket.http.response": {}},
    }

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await house.gateway.front(scope, receive, send)
    assert sent[0]["type"] == "websocket.http.response.start"
    assert sent[0]["status"] == 501
    sent.clear()
    await house.gateway.front(scope | {"extensions": {}}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1003, "reason": "websocket_unsupported"}]


@pytest.mark.parametrize("limits", [GatewayLimits(max_calls=1)], ids=["one"])
async def test_too_many_calls_at_once_are_429(house: House):
    """The gateway itself is bounded; a place is free again when a call ends."""
    queueing = house.queueing()
    first = asyncio.ensure_future(house.post())
    await asyncio.wait_for(queueing.acquire(), 60)
    assert said(await house.post()) == (429, "gateway_full")
    first.cancel()
    await asyncio.wait((first,))
    await house.quiet()
    assert said(await house.post("/c/no-such/x")) == (404, "chute_not_found")


@pytest.mark.parametrize(
    "limits", [GatewayLimits(max_buffered_bytes=100, cold_wait_s=0.0)], ids=["little"]
)
async def test_bodies_are_bounded_all_together(house: House):
    """Bodies held at once have a bound of their own, and give their room back."""
    assert said(await house.post(content=bytes(101))) == (429, "bodies_full")
    assert said(await house.post(content=bytes(100))) == (503, "no_instance")


@pytest.mark.parametrize("limits", [GatewayLimits(body_timeout_s=0.05)], ids=["short"])
async def test_a_body_that_never_comes_is_408(house: House):
    """A caller who announces a body and sends none holds nothing for long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(
        b"POST /c/bob-echo/api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
        b"Authorization: Bearer " + house.key.encode() + b"\r\n\r\n"
    )
    assert b"408" in await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert house.gateway.taken_rao(house.owner_id) == 0


async def test_a_caller_who_leaves_during_the_upload_leaves_nothing(house: House, instance):
    """Half a body is no call: no hold, no record, nothing sent."""
    one = await instance(echo)
    house.serve(one)
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(
        b"POST /c/bob-echo/api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
        b"Authorization: Bearer " + house.key.encode() + b"\r\n\r\nhalf"
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await house.post(content=b"x")).status_code == 200
    await house.quiet()
    assert house.journal.last_sequence == 1
    assert len(one.calls) == 1
    assert house.gateway.stats()["body_bytes"] == 0
