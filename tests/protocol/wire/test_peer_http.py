"""What a neuron takes from another neuron's HTTP: bounded in bytes and in time."""

import asyncio

import pytest
from pydantic import BaseModel

from chutes_core.base.errors import ProtocolError, TimedOut, Unavailable
from chutes_core.wire.peer_http import MAX_ANSWER_BYTES, PeerSession


class Reading(BaseModel):
    text: str


@pytest.fixture
async def peer():
    """Serve one answer, or none, on a real socket; yields a function that starts it."""
    servers = []

    async def start(answer):
        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            if answer is not None:
                writer.write(answer)
            await reader.read()  # until the client has closed
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


def http(body, *, status="200 OK", length=None):
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n".encode() + body


async def test_a_fitting_answer_is_read(peer):
    """To its last byte, as what it should be."""
    async with PeerSession() as peers:
        assert (await peers.get(await peer(http(b'{"text": "x"}')), Reading)).text == "x"


@pytest.mark.parametrize("length", [MAX_ANSWER_BYTES + 1, 10**15])
async def test_too_large_an_answer_is_read_no_further(peer, length):
    """Whatever it announces, one byte too many ends it."""
    url = await peer(http(b"x" * (MAX_ANSWER_BYTES + 1), length=length))
    async with PeerSession(timeout_s=120) as peers:
        with pytest.raises(ProtocolError) as caught:
            await peers.get(url, Reading)
    assert caught.value.code == "answer_too_large"


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\n", http(b"{", length=9)])
async def test_a_peer_that_stalls_is_given_up(peer, answer):
    """Before the head, in it, or in the body."""
    async with PeerSession(timeout_s=0.3) as peers:
        with pytest.raises(TimedOut) as caught:
            await peers.get(await peer(answer), Reading)
    assert caught.value.code == "peer_timeout"


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (http(b"{}"), ProtocolError, "bad_answer"),
        (http(b"no", status="404 Not Found"), Unavailable, "bad_answer"),
        (http(b"", status="302 Found\r\nLocation: http://127.0.0.1:9/"), Unavailable, "bad_answer"),
        (b"nonsense\r\n\r\n", Unavailable, "peer_unreachable"),
    ],
)
async def test_another_answer_is_a_typed_error(peer, answer, kind, code):
    """No redirect is followed, and nothing but the form that was asked for is believed."""
    async with PeerSession() as peers:
        with pytest.raises(kind) as caught:
            await peers.get(await peer(answer), Reading)
    assert caught.value.code == code
