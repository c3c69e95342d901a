"""Handshakes of websockets, byte by byte: what is sound, and what is never read as HTTP."""

import asyncio
import contextlib
import random
import re
import socket
import ssl

import pytest
from certificate import make_certificate
from websocket_stand_in import (
    NONCE,
    PATIENCE_S,
    PLACE,
    accept_of,
    echo,
    handshake,
    instance_of,
    masked,
    raw_instance,
    socket_house,
)

from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.wire.http_server import HttpLimits, new_server

ORDINARY = (
    "POST /c/bob-echo/api/echo HTTP/1.1\r\nHost: x\r\nX-Api-Key: {}\r\nContent-Length: 7\r\n\r\n"
)
BAD = {
    "no connection": ("connection", ()),
    "another connection": ("connection", ("Connection: keep-alive",)),
    "two upgrades": ("", ("Upgrade: websocket",)),
    "two protocols": ("", ("Upgrade: h2c",)),
    "a list of protocols": ("upgrade", ("Upgrade: h2c, websocket",)),
    "a version of it": ("upgrade", ("Upgrade: websocket, websocket",)),
    "a length": ("", ("Content-Length: 0",)),
    "a body": ("", ("Content-Length: 5",)),
    "chunks": ("", ("Transfer-Encoding: chunked",)),
    "no key": ("sec-websocket-key", ()),
    "an empty key": ("sec-websocket-key", ("Sec-WebSocket-Key:",)),
    "a short key": ("sec-websocket-key", ("Sec-WebSocket-Key: AAAA",)),
    "a key that is none": ("sec-websocket-key", ("Sec-WebSocket-Key: " + "!" * 22 + "==",)),
    "two keys": ("", (f"Sec-WebSocket-Key: {NONCE}",)),
    "no version": ("sec-websocket-version", ()),
    "two versions": ("", ("Sec-WebSocket-Version: 13",)),
    "HTTP/1.0": ("get", ()),
    "POST": ("get", ()),
}
FIRST = {"HTTP/1.0": f"GET {PLACE} HTTP/1.0", "POST": f"POST {PLACE} HTTP/1.1"}


@pytest.fixture
async def house(tmp_path):
    async with socket_house(tmp_path) as made:
        yield made


def heads(answer: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d{3})", answer)


@pytest.mark.parametrize("case", BAD)
async def test_what_is_no_handshake_is_400_and_the_connections_last(house, case):
    """What is hidden behind it, as HTTP or as a frame, reaches nobody."""
    async with instance_of(echo) as one:
        house.serve(one)
        drop, more = BAD[case]
        head = handshake(house.key, drop=drop, more=more)
        if case in FIRST:
            head = FIRST[case].encode() + b"\r\n" + head
        behind = b"12345" if case == "a body" else b"0\r\n\r\n" if case == "chunks" else b""
        smuggled = ORDINARY.format(house.key).encode() + b"secret!"
        answer = await house.raw(head, behind + smuggled + masked(b"secret!"))
        assert heads(answer) == [b"400"]
        # without Connection: Upgrade the parser reads on, and may stop at what is no HTTP first
        assert re.search(rb'"code": ?"(bad_handshake|malformed_http)"', answer)
        assert b"connection: close" in answer
        await house.quiet()
        assert one.connections == 0


async def test_another_version_is_426_and_is_told_which(house):
    """RFC 6455, 4.4: the answer names what is spoken."""
    head = handshake(house.key, drop="sec-websocket-version", more=("Sec-WebSocket-Version: 8",))
    answer = await house.raw(head, masked(b"x"))
    assert heads(answer) == [b"426"]
    lines = answer.lower().split(b"\r\n")
    assert b"sec-websocket-version: 13" in lines
    assert b"upgrade: websocket" in lines


@pytest.mark.parametrize("key", ["nobody's", ""], ids=["wrong", "none"])
async def test_nothing_is_read_behind_a_refused_one(house, key):
    """Whatever the reason of the refusal."""
    smuggled = ORDINARY.format(house.key).encode() + b"secret!"
    answer = await house.raw(handshake(key), smuggled)
    assert heads(answer) == [b"401"]
    assert await house.recorded() == []


SAID = masked(b"first") + ORDINARY.format("k").encode() + b"secret!" + bytes(range(256))


async def test_what_comes_behind_a_handshake_is_the_servers_in_order(house):
    """Sent before the 101, it waits for it; what looks like HTTP is bytes like any others."""
    async with raw_instance(len(SAID)) as one:
        house.serve(one)
        answer = await house.raw(handshake(house.key), SAID)
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert rest == SAID
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
        names = [line.partition(b":")[0] for line in lines]
        for line in (b"upgrade: websocket", b"connection: upgrade"):
            assert lines.count(line) == names.count(line.partition(b":")[0]) == 1
        assert f"sec-websocket-accept: {accept_of(NONCE)}".encode() in lines
        (record,) = await house.recorded()
        assert (record.outcome, record.bytes_in, record.bytes_out) == ("ok", *[len(SAID)] * 2)


async def test_it_may_come_in_any_pieces(house):
    """One byte at a time: the same."""
    async with raw_instance(len(SAID)) as one:
        house.serve(one)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        for byte in handshake(house.key) + SAID:
            writer.write(bytes([byte]))
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
        assert answer.endswith(b"\r\n\r\n" + SAID)


async def test_one_behind_other_requests_has_its_turn_and_its_bytes(house):
    """Pipelined behind two that are answered first: nothing of what follows it is lost."""
    async with raw_instance(len(SAID) * 2) as one:
        house.serve(one)
        before = f"GET /control HTTP/1.1\r\nHost: x\r\n\r\nGET {PLACE} HTTP/1.1\r\nHost: x\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(before.encode() + handshake(house.key) + SAID)
        await asyncio.wait_for(reader.readuntil(b" 101 "), PATIENCE_S)
        writer.write(SAID)
        rest = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
        assert rest.endswith(b"\r\n\r\n" + SAID + SAID)


async def test_many_bytes_before_the_101_are_not_held(house):
    """Who sends on and on before an instance has agreed is read no further than a little."""
    waiting = asyncio.Event()

    async def waits(connection, request):
        await waiting.wait()

    async with instance_of(echo, process_request=waits) as one:
        house.serve(one)
        _, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(handshake(house.key))
        sending = asyncio.ensure_future(sends(writer))
        while all(each._reading for each in house.server.connections):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # no event tells it
        (connection,) = house.server.connections
        assert connection._current.size < 2 * 1024 * 1024
        assert not sending.done()
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await sending
        waiting.set()


async def sends(writer: asyncio.StreamWriter) -> None:
    for _ in range(1000):
        writer.write(masked(bytes(100)) * 1000)
        await writer.drain()


async def test_the_control_plane_has_none(house):
    """A websocket that is no invocation is refused as before, and closed."""
    answer = await house.raw(handshake(house.key, path="/control"), masked(b"x"))
    assert len(heads(answer)) <= 1
    assert b"101" not in answer[:20]


async def test_over_tls(tmp_path):
    """TLS that ends at the gateway: the same bytes, and an end that the caller sees."""
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with socket_house(tmp_path, tls=context) as house, instance_of(echo) as one:
        house.serve(one)
        async with house.connect(host="localhost", ssl=trusting) as client:
            await client.send("a")
            assert await asyncio.wait_for(client.recv(), PATIENCE_S) == "a"
        (record,) = await house.recorded()
    assert record.outcome == "ok"


async def test_the_reference_says_that_it_carries_none(tmp_path):
    """501 with a hint, not an ordinary call that would be charged."""
    journal = Journal(tmp_path / "journal", "w1")
    gateway = Gateway(control=nobody, journal=journal, limits=GatewayLimits(), rng=random.Random(1))
    async with socket_house(tmp_path / "plane") as house:
        gateway.swap(house.world.snapshot())
        listener = socket.create_server(("127.0.0.1", 0))
        server = new_server(gateway.front, HttpLimits(), grace_s=1)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(handshake(house.key))
        answer = await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE_S)
        writer.close()
        server.should_exit = True
        await serving
        listener.close()
    assert heads(answer) == [b"501"]
    assert b"websocket_unsupported" in answer
    await gateway.close()
    journal.close()


async def nobody(scope, receive, send) -> None:
    raise AssertionError("only calls come here")
