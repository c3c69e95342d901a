"""The chute as an ASGI application: both ways to a cord, streams, errors."""

import asyncio
import base64
import logging
import threading

import pytest
from fastapi import HTTPException
from pydantic import BaseModel, Field
from starlette.responses import PlainTextResponse

from chutes_core.sdk.chute import Chute


class Prompt(BaseModel):
    text: str = Field(max_length=5)


async def post(client_of, chute, path, body, **options):
    async with client_of(chute) as client:
        return await client.post(path, json=body, **options)


async def test_both_ways_to_a_cord(chute, client_of):
    """The internal path takes args and kwargs, the public one the plain body."""

    @chute.cord(public_api_path="/v1/double")
    async def double(self, text: str, times: int = 2) -> str:
        return text * times

    for path, body in [
        ("/double", {"args": ["ab"], "kwargs": {"times": 3}}),
        ("/double", {"args": [], "kwargs": {"text": "ab", "times": 3}}),
        ("/v1/double", {"text": "ab", "times": 3}),
        ("/double", {"text": "ab", "times": 3}),
    ]:
        answer = await post(client_of, chute, path, body)
        assert (answer.status_code, answer.json()) == (200, "ababab")


CALL = {"X-Chutes-Call": "arguments"}


async def test_one_path_for_both_ways(chute, client_of):
    """Where internal and public path are the same, the gateway's header marks SDK calls."""

    @chute.cord(public_api_path="/echo")
    async def echo(self, given: dict) -> dict:
        return given

    body = {"args": [{"a": 1}], "kwargs": {}}
    assert (await post(client_of, chute, "/echo", body)).json() == body
    assert (await post(client_of, chute, "/echo", body, headers=CALL)).json() == {"a": 1}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"args": ["a"]}, 200),
        ({"kwargs": {"text": "a"}}, 200),
        ({}, 422),
        ([], 422),
        ("a", 422),
        ({"args": {}}, 422),
        ({"text": "a"}, 422),
        ({"args": [], "kwargs": {}, "x": 1}, 422),
    ],
)
async def test_marked_calls_are_nothing_else(chute, client_of, body, status):
    """With the header the body is args and kwargs, either may be left out, and nothing more."""

    @chute.cord(public_api_path="/echo")
    async def echo(self, text: str) -> str:
        return text

    assert (await post(client_of, chute, "/echo", body, headers=CALL)).status_code == status


async def test_a_body_with_more_than_args_and_kwargs_is_plain(chute, client_of):
    """On an internal path without the header, only exactly args and kwargs make an SDK call."""

    @chute.cord()
    async def echo(self, given: dict) -> dict:
        return given

    body = {"args": [1], "kwargs": {}, "more": 1}
    assert (await post(client_of, chute, "/echo", body)).json() == body


async def test_get_cords_take_their_query(chute, client_of):
    """A GET reads its parameters from the query and checks them."""

    @chute.cord(method="GET", public_api_path="/v1/add", public_api_method="GET")
    async def add(self, a: int, b: list[int]) -> int:
        return a + sum(b)

    async with client_of(chute) as client:
        assert (await client.get("/v1/add?a=1&b=2&b=3")).json() == 6
        assert (await client.get("/add?a=1&b=2&b=3")).json() == 6
        assert (await client.post("/add", json={"args": [1, [2]], "kwargs": {}})).json() == 3
        refused = await client.get("/v1/add?a=x&b=2&b=3")
    assert refused.status_code == 422
    assert refused.json()["fields"][0]["loc"] == "a"


@pytest.mark.parametrize(
    ("raw", "loc"),
    [(b'{"text": "too long"}', "text"), (b"{}", "text"), (b"[]", ""), (b"{", ""), (b"\xff", "")],
)
async def test_invalid_bodies_are_422_with_the_field(chute, client_of, raw, loc):
    """A body that does not fit, or is no JSON, never reaches the function."""
    called = []

    @chute.cord(public_api_path="/v1/run")
    async def run(self, prompt: Prompt) -> None:
        called.append(prompt)

    async with client_of(chute) as client:
        answer = await client.post("/v1/run", content=raw)
    document = answer.json()
    assert (answer.status_code, document["code"]) == (422, "invalid_input")
    assert document["fields"][0]["loc"] == loc
    assert not called


@pytest.mark.parametrize(
    ("result", "content_type", "body"),
    [
        (Prompt(text="a"), "application/json", b'{"text":"a"}'),
        ({"x": [1, None]}, "application/json", b'{"x":[1,null]}'),
        ("text", "application/json", b'"text"'),
        (None, "application/json", b"null"),
        (float("nan"), "application/json", b"null"),
        (b"\x00\x01", "application/octet-stream", b"\x00\x01"),
        (PlainTextResponse("own", status_code=201), "text/plain; charset=utf-8", b"own"),
    ],
)
async def test_results_on_the_wire(chute, client_of, result, content_type, body):
    """Models and values become JSON, bytes stay bytes, a Response is sent as it is."""

    @chute.cord()
    async def give(self):
        return result

    answer = await post(client_of, chute, "/give", {})
    assert answer.headers["content-type"] == content_type
    assert answer.content == body


@pytest.mark.parametrize(("kind", "result"), [("image/png", b"\x89PNG"), ("text/csv", "a,b")])
async def test_output_content_type(chute, client_of, kind, result):
    """Bytes and text are sent raw under the content type that the cord declares."""

    @chute.cord(output_content_type=kind)
    async def give(self):
        return result

    answer = await post(client_of, chute, "/give", {})
    assert answer.headers["content-type"].startswith(kind)
    assert answer.content == (result if isinstance(result, bytes) else result.encode())


async def test_sync_functions_run_beside_the_event_loop(chute, client_of):
    """A blocking function does not keep another call from being answered."""
    released = threading.Event()

    @chute.cord()
    def block(self) -> bool:
        return released.wait(timeout=10)

    @chute.cord()
    async def release(self) -> None:
        released.set()

    async with client_of(chute) as client:
        blocked = asyncio.create_task(client.post("/block", json={}))
        await client.post("/release", json={})
        assert (await blocked).json() is True


async def test_the_function_gets_the_chute_as_self(chute, client_of):
    """What a start-up hook put on the chute is there in the cord."""

    @chute.on_startup()
    async def load(self):
        self.weights = 42

    @chute.cord()
    async def read(self) -> int:
        return self.weights

    await chute.startup()
    assert (await post(client_of, chute, "/read", {})).json() == 42


async def test_streams_are_sent_item_by_item(chute):
    """The first item is on the wire while the function still waits for the second."""
    go_on = asyncio.Event()

    @chute.cord(stream=True, public_api_path="/s")
    async def count(self):
        yield {"n": 1}
        await go_on.wait()
        yield "data: [DONE]\n\n"

    chunks: list[bytes] = []
    heads: list[dict] = []

    async def send(message):
        if message["type"] == "http.response.start":
            heads.append(message)
        elif message.get("body"):
            chunks.append(message["body"])
            if len(chunks) == 1:
                go_on.set()

    await asyncio.wait_for(chute(_scope("/s"), _receiver(b"{}"), send), timeout=10)
    assert chunks == [b'data: {"n":1}\n\n', b"data: [DONE]\n\n"]
    assert dict(heads[0]["headers"])[b"content-type"].startswith(b"text/event-stream")


async def test_other_stream_types_send_lines(chute, client_of):
    """A stream that is no event stream sends one JSON document a line."""

    @chute.cord(stream=True, output_content_type="application/x-ndjson")
    def count(self, upto: int):
        for n in range(upto):
            yield {"n": n}

    answer = await post(client_of, chute, "/count", {"upto": 2})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text == '{"n":0}\n{"n":1}\n'


async def test_an_empty_stream_is_an_empty_answer(chute, client_of):
    """A stream without items is a 200 without a body."""

    @chute.cord(stream=True)
    async def nothing(self):
        return
        yield

    answer = await post(client_of, chute, "/nothing", {})
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_stream_that_fails_at_once_is_a_plain_500(chute, client_of, caplog):
    """Before the first item nothing is sent, so an early failure still has a status."""

    @chute.cord(stream=True)
    async def broken(self):
        raise ValueError("secret detail")
        yield

    answer = await post(client_of, chute, "/broken", {})
    assert (answer.status_code, answer.json()["code"]) == (500, "cord_failed")


async def test_a_stream_that_fails_later_breaks_off(chute, caplog):
    """After the first item a failure surfaces to the server, which cuts the connection."""

    @chute.cord(stream=True)
    async def broken(self):
        yield "one"
        raise ValueError("late")

    sent = []

    async def send(message):
        sent.append(message)

    with pytest.raises(ValueError, match="late"):
        await chute(_scope("/broken"), _receiver(b"{}"), send)
    assert sent[1]["body"] == b"one"
    assert all(message.get("more_body", True) for message in sent)


async def test_a_client_that_leaves_ends_the_function(chute):
    """When the caller disconnects in the middle, the generator's clean-up runs."""
    ended = asyncio.Event()

    @chute.cord(stream=True)
    async def forever(self):
        try:
            while True:
                yield "x"
                await asyncio.sleep(0)
        finally:
            ended.set()

    received = asyncio.Event()
    messages = iter([{"type": "http.request", "body": b"{}", "more_body": False}])

    async def receive():
        message = next(messages, None)
        if message is not None:
            return message
        await received.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.body":
            received.set()

    await asyncio.wait_for(chute(_scope("/forever"), receive, send), timeout=10)
    await asyncio.wait_for(ended.wait(), timeout=10)


async def test_a_cancelled_stream_has_cleaned_up_when_it_ends(chute):
    """When a call is cancelled while it sends, the function's clean-up is over by its end."""
    sending = asyncio.Event()
    cleaned = []

    @chute.cord(stream=True)
    async def forever(self):
        try:
            while True:
                yield "x"
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def send(message):
        if message["type"] == "http.response.body":
            sending.set()
            await asyncio.Event().wait()

    call = asyncio.create_task(chute(_scope("/forever"), _receiver(b"{}"), send))
    await asyncio.wait_for(sending.wait(), timeout=10)
    call.cancel()
    await asyncio.wait([call], timeout=10)
    assert cleaned == [True]


async def test_stream_and_plain_cord_on_one_public_path(chute, client_of):
    """The body's `stream` chooses between two cords that share a public path."""

    @chute.cord(public_api_path="/v1/chat")
    async def chat(self, given: dict) -> str:
        return "plain"

    @chute.cord(public_api_path="/v1/chat", stream=True)
    async def chat_stream(self, given: dict):
        yield "streamed"

    plain = await post(client_of, chute, "/v1/chat", {"stream": False})
    streamed = await post(client_of, chute, "/v1/chat", {"stream": True})
    assert (plain.json(), streamed.text) == ("plain", "streamed")
    assert (await post(client_of, chute, "/v1/chat", {})).json() == "plain"


async def test_a_failure_says_no_more_than_its_kind(chute, client_of, caplog):
    """The caller learns the kind of error; the traceback goes to the instance's log."""

    @chute.cord()
    async def broken(self):
        raise ValueError("secret detail")

    with caplog.at_level(logging.ERROR, logger="chutes"):
        answer = await post(client_of, chute, "/broken", {})
    assert (answer.status_code, answer.json()["code"]) == (500, "cord_failed")
    assert "secret detail" not in answer.text
    assert "ValueError" in answer.text
    assert "secret detail" in caplog.text


async def test_a_result_that_is_no_json_is_a_failure(chute, client_of, caplog):
    """An object that cannot be written as JSON is a 500, not a hang or half an answer."""

    @chute.cord()
    async def odd(self):
        return object()

    answer = await post(client_of, chute, "/odd", {})
    assert (answer.status_code, answer.json()["code"]) == (500, "cord_failed")


async def test_http_exceptions_keep_their_status(chute, client_of):
    """A function may answer with a status of its own; the body has the usual form."""

    @chute.cord()
    async def teapot(self):
        raise HTTPException(418, "short and stout", headers={"X-Pot": "1"})

    answer = await post(client_of, chute, "/teapot", {})
    assert answer.status_code == 418
    assert answer.json() == {"detail": "short and stout", "code": "http_418", "hint": ""}
    assert answer.headers["x-pot"] == "1"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/nothing"])
async def test_nothing_but_cords_is_served(chute, client_of, path):
    """Documentation pages are off, and an unknown path is a 404 in the usual form."""
    async with client_of(chute) as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "http_404")


async def test_a_wrong_method_is_405(chute, client_of):
    """A cord answers its own methods only."""

    @chute.cord()
    async def echo(self) -> None: ...

    async with client_of(chute) as client:
        answer = await client.get("/echo")
    assert (answer.status_code, answer.json()["code"]) == (405, "http_405")


async def test_documentation_can_be_asked_for(client_of):
    """FastAPI's own arguments pass through."""
    chute = Chute(username="bob", name="app", image="bob/app:1", openapi_url="/openapi.json")
    async with client_of(chute) as client:
        assert (await client.get("/openapi.json")).status_code == 200


async def test_hooks_run_in_the_lifespan(chute):
    """Under an ASGI server start-up hooks run before it serves, shutdown hooks after."""
    seen = []
    chute.on_startup()(lambda self: seen.append("up"))
    chute.on_shutdown()(lambda self: seen.append("down"))
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent = []

    async def receive():
        return next(messages)

    async def send(message):
        sent.append((message["type"], list(seen)))

    await chute({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert sent == [
        ("lifespan.startup.complete", ["up"]),
        ("lifespan.shutdown.complete", ["up", "down"]),
    ]


async def test_cords_call_each_other_inside_the_runner(chute, client_of, monkeypatch):
    """In the runner, calling a cord runs its function in this process."""
    monkeypatch.setenv("CHUTES_EXECUTION_CONTEXT", "REMOTE")

    @chute.cord()
    def code(self, text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    @chute.cord(stream=True)
    async def items(self, n: int):
        for index in range(n):
            yield index

    @chute.cord()
    async def both(self, text: str) -> list:
        return [await code(text), [item async for item in items(2)]]

    answer = await post(client_of, chute, "/both", {"text": "a"})
    assert answer.json() == ["YQ==", [0, 1]]


def _scope(path: str) -> dict:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


def _receiver(body: bytes):
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive():
        message = next(messages, None)
        if message is None:
            await asyncio.Event().wait()
        return message

    return receive
