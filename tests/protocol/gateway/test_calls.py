import asyncio

import httpx
import orjson
from gateway_stand_in import House, Incoming


async def echo(call: Incoming) -> None:
    await call.answer(call.body or b"nothing")


async def test_a_call_by_path_is_answered_and_recorded_with_its_id(house: House, instance):
    """The answer carries the invocation's id, and the journal holds that id with its usage."""
    one = await instance(echo)
    house.serve(one)
    response = await house.post(content=b"hello")
    assert (response.status_code, response.content) == (200, b"hello")
    (record,) = house.journal.pending(0, 10)
    assert record.invocation_id == response.headers["x-chutes-invocationid"]
    assert record.outcome == "ok"
    assert (record.bytes_in, record.bytes_out, record.status) == (5, 5, 200)
    assert record.user_id == house.owner_id
    assert record.launch_id == one.launch_id
    assert record.usage_us > 0
    assert one.calls[0].head.path == "/api/echo"


async def test_a_call_by_host_is_answered(house: House, instance):
    """The slug may stand in the Host header instead of the path."""
    house.serve(await instance(echo))
    headers = house.auth | {"host": "bob-echo.chutes.test:8443"}
    response = await house.post("/api/echo", content=b"x", headers=headers)
    assert response.content == b"x"


async def test_a_call_by_model_is_answered(house: House, instance):
    """Under /v1/ the chute is chosen by the body's model."""
    one = await instance(echo)
    house.serve(one)
    response = await house.post("/v1/chat/completions", json={"model": "model/bob-echo"})
    assert response.status_code == 200
    assert one.calls[0].head.path == "/v1/chat/completions"
    (record,) = house.journal.pending(0, 10)
    assert record.chute_id == house.chute.chute_id


async def test_a_call_by_chute_id_carries_arguments_and_says_so(house: House, instance):
    """POST /chutes/{id}{cord path} reaches the cord's own path, marked as a call by arguments."""
    one = await instance(echo)
    house.serve(one)
    path = f"/chutes/{house.chute.chute_id}/echo"
    response = await house.post(path, json={"args": ["a"], "kwargs": {}})
    assert orjson.loads(response.content) == {"args": ["a"], "kwargs": {}}
    assert one.calls[0].head.path == "/echo"
    assert one.calls[0].headers["x-chutes-call"] == "arguments"


async def test_query_and_method_reach_the_instance(house: House, instance):
    """A GET cord is called with its query and without a body."""
    one = await instance(echo)
    house.serve(one)
    response = await house.client.get("/c/bob-echo/api/look?a=1&b=%20", headers=house.auth)
    assert response.content == b"nothing"
    assert (one.calls[0].head.method, one.calls[0].head.query) == ("GET", "a=1&b=%20")


async def test_everything_else_is_the_control_planes(house: House):
    """Only the four forms are invocations."""
    for method, path in (
        ("GET", "/ping"),
        ("POST", "/chutes/"),
        ("POST", "/chutes/share"),
        ("GET", f"/chutes/{house.chute.chute_id}"),
        ("DELETE", f"/chutes/{house.chute.chute_id}"),
        ("GET", "/v1"),
    ):
        response = await house.client.request(method, path)
        assert response.content == b"control " + path.encode()


async def test_models_lists_what_the_key_may_call(house: House):
    """GET /v1/models names public, own and shared models only."""
    other = house.world.user()
    house.world.chute(other, "amy-private")
    house.world.chute(other, "amy-public", public=True)
    house.world.chute(other, "amy-shared", shared_with=frozenset((house.owner_id,)))
    house.swap()
    response = await house.client.get("/v1/models", headers=house.auth)
    names = [model["id"] for model in response.json()["data"]]
    assert names == ["model/amy-public", "model/amy-shared", "model/bob-echo"]


async def test_no_credential_of_the_caller_reaches_the_instance(house: House, instance):
    """Key, cookies, signature headers and addresses stay with the validator; others pass."""
    one = await instance(echo)
    house.serve(one)
    headers = house.auth | {
        "X-API-Key": house.key,
        "Cookie": "session=1",
        "X-Chutes-UserID": house.owner_id,
        "X-Forwarded-For": "192.0.2.1",
        "Connection": "x-hop",
        "X-Hop": "1",
        "X-Mine": "kept",
    }
    await house.post(content=b"x", headers=headers)
    seen = one.calls[0].headers
    assert seen["x-mine"] == "kept"
    assert house.key not in str(one.calls[0].head)
    assert {"authorization", "x-api-key", "cookie", "x-chutes-userid", "x-hop", "host"}.isdisjoint(
        seen
    )
    assert "x-forwarded-for" not in seen


async def test_a_chute_sets_no_cookie_and_no_validator_header(house: House, instance):
    """The chute's own headers pass, but none by which it would speak for the validator."""

    async def handler(call: Incoming) -> None:
        await call.answer(
            headers=(
                ("set-cookie", "a=b"),
                ("x-chutes-invocationid", "forged"),
                ("transfer-encoding", "chunked"),
                ("x-own", "yes"),
            )
        )

    house.serve(await instance(handler))
    response = await house.post()
    assert response.headers["x-own"] == "yes"
    assert "set-cookie" not in response.headers
    assert len(response.headers.get_list("x-chutes-invocationid")) == 1
    assert response.headers["x-chutes-invocationid"] != "forged"


async def test_a_stream_arrives_chunk_by_chunk(house: House, instance):
    """Each chunk reaches the caller before the chute makes the next one."""
    go = asyncio.Event()

    async def handler(call: Incoming) -> None:
        await call.start(200, (("content-type", "text/event-stream"),))
        for number in range(4):
            await call.chunk(b"data: %d\n\n" % number)
            await asyncio.wait_for(go.wait(), 60)
            go.clear()
        await call.end()

    house.serve(await instance(handler))
    got = []
    async with house.client.stream("POST", "/c/bob-echo/api/echo", headers=house.auth) as response:
        async for data in response.aiter_raw():
            got.append(data)
            assert house.journal.last_sequence == 0
            go.set()
    assert got == [b"data: %d\n\n" % number for number in range(4)]
    assert house.journal.last_sequence == 1


async def test_a_large_body_goes_both_ways(house: House, instance):
    """A body of many frames arrives whole and comes back whole."""
    house.serve(await instance(echo))
    body = bytes(range(256)) * 1100
    response = await house.post(content=body)
    assert response.content == body


async def test_connections_are_used_again(house: House, instance):
    """Calls one after another share one sealed connection."""
    one = await instance(echo)
    house.serve(one)
    for _ in range(5):
        await house.post(content=b"x")
    assert (len(one.calls), one.connections) == (5, 1)


async def test_the_record_is_written_before_the_last_byte(house: House, instance):
    """With a content-length the completing chunk waits for the journal."""
    pause = asyncio.Event()

    async def handler(call: Incoming) -> None:
        await call.start(200, (("content-length", "4"),))
        await call.chunk(b"ab")
        await call.chunk(b"cd")
        await pause.wait()
        await call.end()

    house.serve(await instance(handler))
    async with house.client.stream("POST", "/c/bob-echo/api/echo", headers=house.auth) as response:
        chunks = response.aiter_raw()
        assert await chunks.__anext__() == b"ab"
        assert house.journal.last_sequence == 0
        pause.set()
        assert await chunks.__anext__() == b"cd"
        assert house.journal.last_sequence == 1


async def test_the_chutes_own_error_passes_and_costs_nothing(house: House, instance):
    """A 5xx of the chute is handed on, recorded as chute_error, and not charged."""

    async def handler(call: Incoming) -> None:
        await call.answer(b"boom", status=500)

    house.serve(await instance(handler))
    response = await house.post()
    assert (response.status_code, response.content) == (500, b"boom")
    (record,) = house.journal.pending(0, 10)
    assert (record.outcome, record.charged) == ("chute_error", False)
    assert house.gateway.taken_rao(house.owner_id) == 0


async def test_the_schema_error_of_a_cord_passes(house: House, instance):
    """422 is the chute's to say, and is an answered call."""

    async def handler(call: Incoming) -> None:
        await call.answer(b'{"detail":[]}', status=422)

    house.serve(await instance(handler))
    assert (await house.post()).status_code == 422
    assert house.journal.pending(0, 10)[0].outcome == "ok"


async def test_keep_alive_survives_an_error(house: House, instance):
    """A refused call leaves the caller's connection usable."""
    house.serve(await instance(echo))
    async with httpx.AsyncClient(
        base_url=house.client.base_url, limits=httpx.Limits(max_connections=1), trust_env=False
    ) as client:
        assert (await client.post("/c/bob-echo/api/echo", content=b"x")).status_code == 401
        response = await client.post("/c/bob-echo/api/echo", content=b"y", headers=house.auth)
        assert response.content == b"y"
