"""HTTP before a request exists: raw bytes on real sockets, answered in our form or cut, never hung.

The bounds are small here, and real time is waited for only where a bound is a time.
"""

import asyncio
import contextlib
import json
import socket

import pytest

from chutes_core.validator.gateway.plane.server import Plane
from chutes_core.wire.http_server import HEAD_TIMEOUT_S, HttpLimits, new_server

OK = b"HTTP/1.1 200 OK"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = GET.replace(b"GET", b"POST")
PATIENCE_S = 60.0
SOON_S = 0.9 * HEAD_TIMEOUT_S  # so that it is the limit given that closes, not the usual one


async def app(scope, receive, send):
    """Read the body, then say which address the caller seems to have."""
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        continue
    body = scope["client"][0].encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


class NothingIsACall:
    """A fast path that takes nothing: what precedes a request is the same for all."""

    def begin(self, connection, request):
        return False

    def is_call(self, request):
        return False


def new_plane(app, limits, **options):
    return Plane(app, NothingIsACall(), limits, **options)


@pytest.fixture(params=[new_server, new_plane], ids=["uvicorn", "plane"], autouse=True)
def making(request, monkeypatch):
    """Every test is for both servers: the neurons' on uvicorn, and the gateway's data plane."""
    monkeypatch.setitem(globals(), "make_server", request.param)


@contextlib.asynccontextmanager
async def served(limits=None, **options):
    """Serve `app` and yield its port."""
    door = socket.create_server(("127.0.0.1", 0))
    server = make_server(app, limits, grace_s=1, **options)  # noqa: F821 - set by `making`
    task = asyncio.create_task(server.serve(sockets=[door]))
    while not server.started:  # noqa: ASYNC110 - uvicorn sets a flag, no event
        await asyncio.sleep(0.001)
    try:
        yield door.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        door.close()


async def send(port, data, *, pieces=(), within_s=PATIENCE_S):
    """Send bytes, then pieces one by one; return all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(reader.read())
    writer.write(data)
    for piece in pieces:
        await writer.drain()
        await asyncio.wait((reading,), timeout=0.02)
        if reading.done():
            break
        writer.write(piece)
    try:
        return await asyncio.wait_for(reading, within_s)
    finally:
        writer.close()


def refused(answer):
    """Check the form of a refusal; return its status and code."""
    head, _, body = answer.partition(b"\r\n\r\n")
    document = json.loads(body)
    assert set(document) == {"detail", "code", "hint"}
    assert all(document.values())
    assert b"connection: close" in head
    return int(head.split()[1]), document["code"]


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on the plain port
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\n\r\n",
        GET + b"A b: c\r\n\r\n",
        GET + b"A: b\x00c\r\n\r\n",
        GET + b"A: b\rc\r\n\r\n",
        GET + b" folded: x\r\n\r\n",
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        POST + b"Content-Length: -3\r\n\r\n",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, x\r\n\r\nabc",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    ],
)
async def test_what_is_no_http_is_400(data):
    """Smuggling forms (two lengths, length and chunks), control characters, other protocols."""
    async with served() as port:
        assert refused(await send(port, data)) == (400, "malformed_http")


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\nHost: x\n\n", GET.replace(b"\r", b"") + b"A: b\nC: d\n\n"]
)
async def test_a_bare_line_feed_is_no_end_of_a_line(data):
    """Two servers that disagree on it see different requests: it is refused or cut, not hung."""
    async with served(HttpLimits(head_timeout_s=0.2)) as port:
        assert refused(await send(port, data))[0] in (400, 408)


@pytest.mark.parametrize(
    "head",
    [
        b"A: " + b"b" * 5000,
        b"A" * 5000 + b": b",
        b"A: bbbbbbbbbbbbbbbbbbbb\r\n" * 250 + b"B: c",
        b"A: b\r\n" * 300 + b"B: c",
    ],
)
async def test_too_large_a_head_is_431(head):
    """Bytes and lines of headers are bounded, whether they come whole, in pieces or never end."""
    limits = HttpLimits(max_head_bytes=4096)
    async with served(limits) as port:
        assert refused(await send(port, GET + head + b"\r\n\r\n")) == (431, "head_too_large")
        pieces = [head[at : at + 1000] for at in range(0, len(head), 1000)]
        answer = await send(port, GET, pieces=[*pieces, b"\r\n\r\n"])
        assert refused(answer) == (431, "head_too_large")
        endless = await send(port, GET + b"A: ", pieces=[b"b" * 1000] * 8)
        assert refused(endless) == (431, "head_too_large")
        assert (await send(port, GET + b"Connection: close\r\n\r\n")).startswith(OK)


async def test_too_long_a_target_and_endless_trailers_are_431():
    """The request line and a chunked body's trailers count like headers."""
    async with served(HttpLimits(max_head_bytes=4096)) as port:
        answer = await send(port, b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert refused(answer) == (431, "head_too_large")
        chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
        answer = await send(port, chunked + b"A: ", pieces=[b"b" * 1000] * 8)
        assert refused(answer) == (431, "head_too_large")
        answer = await send(port, chunked + b"A: b\r\n" * 300 + b"\r\n")
        assert refused(answer) == (431, "head_too_large")


async def test_a_slow_head_is_408():
    """A head that trickles in is cut off at its time, however alive the connection looks."""
    async with served(HttpLimits(head_timeout_s=0.3)) as port:
        answer = await send(port, GET, pieces=[b"A: b\r\n"] * 25, within_s=SOON_S)
        assert refused(answer) == (408, "head_timeout")


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n\r\n"])
async def test_a_silent_connection_is_closed(data):
    """Without a request's first line there is nothing to answer."""
    async with served(HttpLimits(head_timeout_s=0.2)) as port:
        assert await send(port, data, within_s=SOON_S) == b""


async def test_an_idle_connection_is_closed_after_its_answer():
    """Kept alive for its time, and no longer; a blank line does not keep it open for ever."""
    async with served(HttpLimits(keep_alive_s=1, head_timeout_s=0.5)) as port:
        assert (await send(port, GET + b"\r\n")).startswith(OK)
        assert (await send(port, GET + b"\r\n", pieces=[b"\r\n"])).startswith(OK)


async def test_too_many_connections_are_503_and_then_cut():
    """Above the bound a request is told so; it is served again when another has left."""
    async with served(HttpLimits(max_connections=2, max_per_address=None)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        assert refused(await send(port, GET + b"\r\n")) == (503, "server_full")
        held[0][1].close()
        await held[0][1].wait_closed()
        await asyncio.sleep(0.05)
        assert (await send(port, GET + b"Connection: close\r\n\r\n")).startswith(OK)
        held[1][1].close()


async def test_too_many_connections_of_one_address_are_429():
    """One address cannot take all connections; others are not counted with it."""
    async with served(HttpLimits(max_per_address=2)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        assert refused(await send(port, GET + b"\r\n")) == (429, "too_many_connections")
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=("127.0.0.2", 0)
        )
        writer.write(GET + b"Connection: close\r\n\r\n")
        assert (await reader.read()).startswith(OK)
        for _, each in [*held, (reader, writer)]:
            each.close()


@pytest.mark.parametrize(("proxies", "seen"), [(None, b"127.0.0.1"), ("127.0.0.1", b"203.0.113.9")])
async def test_only_a_proxy_may_name_the_callers_address(proxies, seen):
    """X-Forwarded-For counts from a proxy that the operator named, and from nobody else."""
    async with served(proxies=proxies) as port:
        data = GET + b"X-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n"
        assert (await send(port, data)).endswith(b"\r\n\r\n" + seen)


async def test_an_application_hears_of_a_body_that_its_caller_cuts(monkeypatch):
    """However the caller leaves: what the request holds is given back at once."""
    seen = asyncio.Queue()

    async def reading(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            seen.put_nowait(len(message["body"]))
        seen.put_nowait(message["type"])

    monkeypatch.setitem(globals(), "app", reading)
    async with served() as port:
        for half_closed in (False, True):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(POST + b"Content-Length: 100000\r\n\r\nhalf")
            assert await asyncio.wait_for(seen.get(), 60) == 4
            if half_closed:
                writer.write_eof()
            else:
                writer.close()
            assert await asyncio.wait_for(seen.get(), 60) == "http.disconnect"
            writer.close()


def patch(monkeypatch, name, value):
    """Lower a constant of both servers."""
    for module in ("wire.http_server", "validator.gateway.plane.http"):
        monkeypatch.setattr(f"chutes_core.{module}.{name}", value)


async def test_a_refused_connection_that_asks_nothing_is_closed(monkeypatch):
    """What is turned away holds its place for a moment only."""
    patch(monkeypatch, "REFUSED_TIMEOUT_S", 0.1)
    async with served(HttpLimits(max_connections=1, head_timeout_s=600)) as port:
        _, first = await asyncio.open_connection("127.0.0.1", port)
        assert await send(port, b"") == b""
        first.close()


async def test_a_refused_answer_is_readable_for_a_moment_and_then_closed(monkeypatch):
    """A caller that keeps sending after its refusal is cut off."""
    patch(monkeypatch, "LINGER_S", 0.1)
    async with served(HttpLimits(head_timeout_s=600, keep_alive_s=600)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"nonsense\r\n\r\n")
        assert refused(await asyncio.wait_for(reader.read(), 60)) == (400, "malformed_http")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(_write_on(writer), 60)
        writer.close()


async def _write_on(writer):
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_beyond_the_connections_that_are_told_so_all_are_cut(monkeypatch):
    """However many come, only so many are answered; the others get no word."""
    patch(monkeypatch, "SPARE_CONNECTIONS", 2)
    patch(monkeypatch, "REFUSED_TIMEOUT_S", 600)
    async with served(HttpLimits(max_connections=1, max_per_address=None)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _ in range(3):
            with contextlib.suppress(ConnectionError):
                assert await send(port, GET + b"\r\n") == b""
        reader, writer = held[-1]
        writer.write(GET + b"\r\n")
        assert refused(await asyncio.wait_for(reader.read(), 60)) == (503, "server_full")
        for _, each in held:
            each.close()
