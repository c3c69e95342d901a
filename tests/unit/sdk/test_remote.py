"""Calling a deployed chute, and passthrough, over real sockets."""

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import BaseModel

from chutes_core.base import errors
from chutes_core.sdk.chute import Chute


class Result(BaseModel):
    value: int


class Server:
    """Answers every request with what the test set, and keeps what came."""

    def __init__(self) -> None:
        self.answer: tuple[int, str, bytes] = (200, "application/json", b"null")
        self.requests: list[dict] = []
        self.cut = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.requests.append(
                    {"method": self.command, "path": self.path, "headers": headers, "body": body}
                )
                status, kind, answer = server.answer
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer) + server.cut))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = handle_any

            def log_message(self, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def remote(server, chute, monkeypatch):
    monkeypatch.setenv("CHUTES_API_URL", server.url)
    monkeypatch.setenv("CHUTES_API_KEY", "cpk_test")

    @chute.cord(public_api_path="/v1/run")
    async def run(self, text: str, n: int = 1) -> Result:
        raise AssertionError("the function must not run here")

    @chute.cord(stream=True)
    async def items(self, n: int):
        yield "never"

    return run, items


async def test_a_call_goes_to_the_deployed_chute(server, chute, remote):
    """await cord(…) posts args and kwargs under the chute's id, and returns the hinted type."""
    server.answer = (200, "application/json", b'{"value": 3}')
    assert await remote[0]("a", n=2) == Result(value=3)
    (request,) = server.requests
    assert (request["method"], request["path"]) == ("POST", f"/chutes/{chute.chute_id}/run")
    assert json.loads(request["body"]) == {"args": ["a"], "kwargs": {"n": 2}}
    assert request["headers"]["authorization"] == "Bearer cpk_test"
    assert request["headers"]["x-chutes-call"] == "arguments"


async def test_models_travel_as_json(server, remote):
    """A pydantic model among the arguments is sent as its fields."""
    server.answer = (200, "application/json", b'{"value": 0}')
    await remote[0](Result(value=1))
    assert json.loads(server.requests[0]["body"])["args"] == [{"value": 1}]


async def test_a_local_chute_is_called_with_the_dev_url(server, remote, monkeypatch):
    """CHUTES_DEV_URL sends the call to the same path of a chute on this machine, unsigned."""
    monkeypatch.setenv("CHUTES_DEV_URL", server.url + "/")
    server.answer = (200, "application/json", b'{"value": 3}')
    await remote[0]("a")
    assert server.requests[0]["path"] == "/run"
    assert "authorization" not in server.requests[0]["headers"]


async def test_streams_are_iterated(server, remote):
    """A streaming cord is an async iterator of the text that comes."""
    server.answer = (200, "text/event-stream", b"data: 1\n\ndata: 2\n\n")
    assert "".join([text async for text in remote[1](2)]) == "data: 1\n\ndata: 2\n\n"


async def test_refusals_are_typed(server, remote):
    """An error answer of the server is raised as its typed error, for calls and streams."""
    server.answer = (402, "application/json", b'{"detail": "pay", "code": "insufficient_balance"}')
    with pytest.raises(errors.PaymentRequired, match="insufficient_balance"):
        await remote[0]("a")
    with pytest.raises(errors.PaymentRequired):
        async for _ in remote[1](1):
            pass


async def test_a_stream_that_is_cut_raises(server, remote):
    """A stream that ends before its length is an error after what came."""
    server.answer, server.cut = (200, "text/event-stream", b"data: 1\n\n"), 5
    seen = []

    async def read() -> None:
        async for text in remote[1](2):
            seen.append(text)

    with pytest.raises(errors.ProtocolError, match="broken_off"):
        await read()
    assert seen == ["data: 1\n\n"]


async def test_a_result_that_breaks_its_hint_is_a_protocol_error(server, remote):
    """What does not fit the return hint is not handed on as if it did."""
    server.answer = (200, "application/json", b'{"value": "x"}')
    with pytest.raises(errors.ProtocolError, match="unexpected_result"):
        await remote[0]("a")


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [("text/plain; charset=utf-8", "ä".encode(), "ä"), ("image/png", b"\x89P", b"\x89P")],
)
async def test_text_and_bytes_come_back_as_such(server, remote, kind, body, value):
    """Only JSON is parsed."""
    server.answer = (200, kind, body)
    assert await remote[0]("a") == value


async def test_no_server_is_unreachable(server, remote, monkeypatch):
    """A server that is not there is a typed error with a hint."""
    monkeypatch.setenv("CHUTES_API_URL", "http://127.0.0.1:1")
    with pytest.raises(errors.Unavailable, match="unreachable"):
        await remote[0]("a")


async def test_passthrough_forwards_to_the_local_server(server, client_of):
    """A passthrough cord hands method, query, body and headers on, and the answer back."""
    chute = Chute(username="b", name="a", image="b/a:1", passthrough_headers={"X-Local": "1"})

    @chute.cord(
        passthrough=True,
        passthrough_path="/v1/models",
        passthrough_port=server.port,
        public_api_path="/v1/models",
        public_api_method="GET",
        method="GET",
    )
    async def models(self): ...

    @chute.cord(passthrough=True, passthrough_port=server.port, public_api_path="/v1/chat")
    async def chat(self, given: dict): ...

    server.answer = (201, "application/json", b'{"data": []}')
    async with client_of(chute) as client:
        listed = await client.get("/v1/models?limit=2", headers={"Connection": "x", "X-Mine": "y"})
        chatted = await client.post("/v1/chat", content=b'{"not": "checked"}')
    assert (listed.status_code, listed.json()) == (201, {"data": []})
    assert chatted.status_code == 201
    first, second = server.requests
    assert (first["method"], first["path"]) == ("GET", "/v1/models?limit=2")
    assert (first["headers"]["x-local"], first["headers"]["x-mine"]) == ("1", "y")
    assert (second["path"], second["body"]) == ("/chat", b'{"not": "checked"}')


async def test_passthrough_without_a_server_is_502(chute, client_of):
    """Where the chute's own server does not listen, the caller learns that."""
    chute.cord(passthrough=True, passthrough_port=1)(_nothing)
    async with client_of(chute) as client:
        answer = await client.post("/_nothing", json={})
    assert (answer.status_code, answer.json()["code"]) == (502, "passthrough_unreachable")


async def _nothing(self): ...


def test_a_call_without_an_event_loop_is_blocking(server, chute, remote):
    """`cord.sync(…)` gives the typed result, a stream's items one by one, and typed errors."""

    @chute.cord(stream=True)
    async def tokens(self) -> AsyncIterator[str]:
        yield ""

    @chute.cord()
    async def measure(self, text: str) -> Result: ...

    server.answer = (200, "application/json", b'{"value": 3}')
    assert measure.sync("abc") == Result(value=3)
    assert json.loads(server.requests[-1]["body"]) == {"args": ["abc"], "kwargs": {}}
    server.answer = (200, "text/event-stream", b"data: 1")
    assert list(tokens.sync()) == ["data: 1"]
    server.answer = (404, "application/json", b'{"detail": "gone", "code": "chute_not_found"}')
    with pytest.raises(errors.NotFound, match="gone"):
        measure.sync("abc")
    with pytest.raises(errors.NotFound, match="gone"):
        list(tokens.sync())


def test_leaving_a_blocking_stream_ends_it(chute, monkeypatch):
    """A caller that reads no further closes the function, which has cleaned up by then."""
    monkeypatch.setenv("CHUTES_EXECUTION_CONTEXT", "REMOTE")
    seen = []

    @chute.cord(stream=True)
    async def endless(self) -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                yield number
                await asyncio.sleep(0)
        finally:
            seen.append("closed")

    items = endless.sync()
    assert [next(items), next(items)] == [0, 1]
    items.close()
    assert seen == ["closed"]
