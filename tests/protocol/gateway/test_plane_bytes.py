"""The data plane against its reference: the same bytes in, the same bytes out, and no desync.

One gateway stands behind both servers at once, so that a request can be sent to each; what differs
by its nature (date, invocation id, what is left of a rate, times) is blanked.
"""

import asyncio
import random
import re
import socket
import string
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from gateway_stand_in import DOMAIN, Incoming, Instance, World, planed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.gateway.plane.fast_call import FastCall
from chutes_core.wire.call import ResponseHead
from chutes_core.wire.frames import FrameKind
from chutes_core.wire.http_server import HttpLimits, new_server

LIMITS = GatewayLimits(max_body_bytes=300_000, cold_wait_s=0.0, key_burst=10**6)
HEAD = b"Host: x\r\nX-Api-Key: %b\r\n"
PATIENCE_S = 60.0


@dataclass
class Two:
    """Both servers' ports, and what the instance saw."""

    plane: int
    reference: int
    key: bytes
    seen: list[Incoming]
    gateway: Gateway
    chute_id: str

    def taken(self) -> list[tuple[object, ...]]:
        """Return what the instance saw since it was last asked, without what is each call's own."""
        seen, self.seen[:] = self.seen.copy(), []
        return [(call.head.model_copy(update={"invocation_id": ""}), call.body) for call in seen]

    async def both(self, data: bytes) -> tuple[bytes, bytes]:
        return blank(await talk(self.plane, data)), blank(await talk(self.reference, data))


def blank(answer: bytes) -> bytes:
    answer = re.sub(rb"(?s)(?<=\r\n\r\n)[0-9a-f]+\r\n.*?\r\n0\r\n\r\n", _as_one_chunk, answer)
    answer = re.sub(rb"date: [^\r]+", b"date: D", answer)
    answer = re.sub(rb"(x-ratelimit-(?:remaining|reset)): \d+", rb"\1: N", answer)
    answer = re.sub(rb";dur=\d+\.\d{3}", b";dur=MS", answer)
    return re.sub(rb"[0-9a-f]{8}-[0-9a-f-]{27}", b"ID", answer)


def _as_one_chunk(body: re.Match[bytes]) -> bytes:
    """Pieces that came together may leave as one chunk: only what is in them is compared."""
    rest, pieces = body[0], []
    while not rest.startswith(b"0\r\n"):
        size, _, rest = rest.partition(b"\r\n")
        pieces.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    whole = b"".join(pieces)
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(whole), whole)


# Answers in one frame: status, headers, and what follows the RESPONSE.
FIVE = (("content-type", "text/plain"), ("content-length", "5"))
BODY, END = FrameKind.BODY, FrameKind.END
IN_ONE_FRAME = {
    "one-whole": (200, FIVE, ((BODY, b"12345"), (END, b"{}"))),
    "one-refused": (422, FIVE, ((BODY, b"12345"), (END, b"{}"))),
    "one-failed": (500, FIVE, ((BODY, b"12345"), (END, b"{}"))),
    "one-empty": (200, (("content-length", "0"),), ((BODY, b""), (END, b"{}"))),
    "one-short": (200, FIVE, ((BODY, b"1234"), (END, b"{}"))),
    "one-long": (200, FIVE, ((BODY, b"123456"), (END, b"{}"))),
    "one-none": (204, (), ((BODY, b"12345"), (END, b"{}"))),
    "one-chunked": (200, (), ((BODY, b"12345"), (END, b"{}"))),
    "one-halves": (200, FIVE, ((BODY, b"123"), (BODY, b"45"), (END, b"{}"))),
}


async def in_one_frame(call: Incoming, how: str) -> None:
    status, headers, rest = IN_ONE_FRAME[how]
    head = ResponseHead(status=status, headers=headers).model_dump_json().encode()
    await call.connection.send_together((FrameKind.RESPONSE, head), *rest)


async def talk(port: int, data: bytes, rng: random.Random | None = None) -> bytes:
    """Send bytes, perhaps in two pieces, and return all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    cut = rng.randrange(len(data)) if rng is not None and rng.random() < 0.5 else 0
    try:
        if cut:
            writer.write(data[:cut])
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(data[cut:])
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionError:
        return b"reset"
    finally:
        writer.close()


async def control(scope, receive, send) -> None:
    """A control plane that reads what it is sent, and says how much that was."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    said = b"%s %s %d" % (scope["method"].encode(), scope["path"].encode(), size)
    if scope["path"] == "/chunked":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": said, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    headers = [(b"Content-Length", str(len(said)).encode()), (b"X-Case", b"Kept")]
    if scope["path"] == "/empty":
        await send({"type": "http.response.start", "status": 204, "headers": headers[1:]})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


@asynccontextmanager
async def referenced(gateway: Gateway) -> AsyncIterator[int]:
    """Serve a gateway by its reference, as the validator does."""
    door = socket.create_server(("127.0.0.1", 0))
    server = new_server(gateway.front, HttpLimits(max_per_address=None), grace_s=1)
    task = asyncio.create_task(server.serve(sockets=[door]))
    try:
        yield door.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        door.close()


@pytest.fixture
async def two(tmp_path: Path, instance) -> AsyncIterator[Two]:
    seen: list[Incoming] = []

    async def answer(call: Incoming) -> None:
        seen.append(call)
        match call.headers.get("x-how"):
            case how if how in IN_ONE_FRAME:
                await in_one_frame(call, how)
            case "chunked":
                await call.start(200, (("content-type", "text/event-stream"),))
                for piece in (b"data: 1\n\n", b"data: 2\n\n"):
                    await call.chunk(piece)
                await call.end()
            case "refused":
                await call.answer(b"bad", 422)
            case "failed":
                await call.answer(b"oh", 500)
            case "raised":
                await call.error("cord_failed")
            case "none":
                await call.start(204)
                await call.end()
            case "short":
                await call.start(200, (("content-length", "9"),))
                await call.chunk(b"12345")
                await call.end()
            case _:
                await call.answer(call.body)

    one = await instance(answer)
    journal = Journal(tmp_path / "journal", "w1")
    gateway = Gateway(control=control, journal=journal, limits=LIMITS, domain=DOMAIN)
    world = World()
    owner_id = world.user(spendable_rao=10**15)
    chute, key = world.chute(owner_id), world.key(owner_id)
    world.instances[chute.chute_id] = (one.view(chute.chute_id),)
    world.alias(owner_id, "both", chute)
    gateway.swap(world.snapshot())
    http = HttpLimits(max_per_address=None)
    async with planed(gateway, limits=http) as plane, referenced(gateway) as reference:
        yield Two(plane, reference, key.encode(), seen, gateway, chute.chute_id)
        await asyncio.wait_for(gateway.quiet(), PATIENCE_S)
        assert gateway.stats()["slots"] == gateway.stats()["body_bytes"] == 0
    await gateway.close()
    journal.close()


def call(key: bytes, *headers: bytes, body: bytes = b"hello", method: bytes = b"POST") -> bytes:
    lines = [b"%b /c/bob-echo/api/echo HTTP/1.1" % method, b"Host: x", b"X-Api-Key: " + key]
    lines += [*headers, b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


LAST = b"Connection: close"


@pytest.mark.parametrize(
    "header",
    [
        b"X-How: %b" % how
        for how in [
            *b"whole chunked refused failed raised none short".split(),
            *(how.encode() for how in IN_ONE_FRAME),
        ]
    ],
)
async def test_answers_of_an_instance_are_the_references_bytes(two: Two, header: bytes):
    """Whole, chunked, refused, failed, empty and broken; cold, then on a warm connection."""
    for _ in range(3):
        plane, reference = await two.both(call(two.key, header, LAST))
        assert plane == reference
        assert plane.startswith(b"HTTP/1.1 ")


@pytest.mark.interpreted
async def test_an_answer_in_one_frame_is_taken_at_once(two: Two, monkeypatch):
    """The short way is gone on a warm connection, and what it records is what was sent."""
    took, real = [], FastCall.on_three

    def on_three(self, *messages) -> bool:
        took.append(real(self, *messages))
        return took[-1]

    monkeypatch.setattr(FastCall, "on_three", on_three)
    for _ in range(50):  # the first call opens a connection, the next one learns the head
        answer = await talk(two.plane, call(two.key, b"X-How: one-whole", LAST))
        assert answer.endswith(b"\r\n\r\n12345")
        await asyncio.wait_for(two.gateway.quiet(), PATIENCE_S)
        if any(took):
            break
    assert took[-1]
    newest = two.gateway._journal.pending(0, 100)[-1]
    assert (newest.outcome, newest.status, newest.bytes_out, newest.attempts) == ("ok", 200, 5, 1)
    assert newest.usage_us > 0


async def test_two_calls_of_one_connection_are_the_references_bytes(two: Two):
    """Keep-alive, the same request again, another one, pipelined or not."""
    first, other = call(two.key), call(two.key, b"X-How: chunked", body=b"other body")
    plane, reference = await two.both(first + first + other + call(two.key, LAST))
    assert plane == reference
    assert plane.count(b"HTTP/1.1 200 OK") == 4


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET /chunked?a=b HTTP/1.1\r\nHost: x\r\n",
        b"GET /empty HTTP/1.1\r\nHost: x\r\n",
        b"GET /%C3%A4 HTTP/1.1\r\nHost: x\r\n",
        b"HEAD / HTTP/1.1\r\nHost: x\r\n",
        b"HEAD /chunked HTTP/1.1\r\nHost: x\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\n",
        b"GET /c/none/api HTTP/1.1\r\nHost: x\r\n",
        b"POST /c/bob-echo/api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n",
    ],
)
async def test_other_requests_are_the_references_bytes(two: Two, request_head: bytes):
    """The control plane's, and refusals of the front."""
    plane, reference = await two.both(request_head + LAST + b"\r\n\r\n")
    assert plane == reference


async def test_expect_100_is_answered_before_the_body_is_sent(two: Two):
    """A caller who asks first is told to go on, and one who may not call is not."""
    for port in (two.plane, two.reference):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = call(two.key, b"Expect: 100-continue", LAST, body=b"hello").removesuffix(b"hello")
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.read()).endswith(b"\r\n\r\nhello")
        writer.close()
        refused = await talk(port, head.replace(two.key, b"cpk_wrong"))
        assert refused.startswith(b"HTTP/1.1 401")


async def test_a_body_that_was_not_asked_for_is_not_awaited(two: Two):
    """A caller refused before 100 may leave the body out: what follows is not taken for it."""
    head = call(two.key, b"Expect: 100-continue", body=b"hello").removesuffix(b"hello")
    refused = await talk(two.plane, head.replace(two.key, b"cpk_wrong"))
    assert refused.startswith(b"HTTP/1.1 401")
    assert b"\r\nconnection: close\r\n" in refused


async def test_a_body_in_chunks_or_in_pieces_arrives_whole(two: Two):
    """Chunked with extensions and trailers, and byte by byte."""
    chunked = call(two.key, LAST).partition(b"Content-Length")[0]
    chunked += b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: y\r\n\r\n"
    plane, reference = await two.both(chunked)
    assert plane == reference
    assert plane.endswith(b"hello")
    reader, writer = await asyncio.open_connection("127.0.0.1", two.plane)
    for byte in call(two.key, LAST):
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await reader.read()).endswith(b"\r\n\r\nhello")
    writer.close()


ECHO = b"POST /c/bob-echo/api/echo HTTP/1.1\r\n"
SMUGGLED = ECHO + b"Host: x\r\nContent-Length: 7\r\n\r\nsecret!"
AMBIGUOUS = [
    b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    b"Content-Length: 3, 3\r\n\r\nabc",
    b"Content-Length: +3\r\n\r\nabc",
    b"Content-Length: -3\r\n\r\nabc",
    b"Content-Length: 0x3\r\n\r\nabc",
    b"Content-Length:\r\n\r\nabc",
    b"Content-Length : 3\r\n\r\nabc",
    b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    b"Content-Length: 3\r\nX: a\r\n b\r\n\r\nabc",
    b"X: a\r\n\tContent-Length: 3\r\n\r\nabc",
    b"Content-Length: 3\nX: a\r\n\r\nabc",
    b"Content-Length: 3\r\n\nabc",
    b"X: a\rContent-Length: 3\r\n\r\nabc",
    b"X: a\x00b\r\nContent-Length: 3\r\n\r\nabc",
    b"X\x0b: a\r\nContent-Length: 3\r\n\r\nabc",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n3;\nabc\r\nabc\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nabc\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n",
    b"Host: y\r\nContent-Length: 3\r\n\r\nabc",
]


@pytest.mark.parametrize("rest", AMBIGUOUS)
async def test_what_two_servers_could_read_in_two_ways_is_400(two: Two, rest: bytes):
    """Nothing of it, nor of what is hidden behind it, reaches an instance; the connection ends."""
    data = ECHO + HEAD % two.key + rest + SMUGGLED.replace(b"Host: x", HEAD % two.key)
    answer = await talk(two.plane, data)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert len(re.findall(rb"HTTP/1.1 \d", answer)) == 1
    assert b"secret!" not in answer
    await asyncio.wait_for(two.gateway.quiet(), PATIENCE_S)
    assert two.seen == []


@pytest.mark.parametrize(
    "first",
    [
        b"POST /c/bob-echo/api/echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET http://other/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
        b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_a_first_line_that_is_not_plain_http_1_is_400(two: Two, first: bytes):
    """Other versions, no Host, targets in other forms."""
    assert (await talk(two.plane, first)).startswith(b"HTTP/1.1 400 ")


ALPHABET = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"0", b"3", b"5", b"abc"),
        *(b"\x00", b"\xff", b"Content-Length", b"Transfer-Encoding", b"chunked", b"HTTP/1.1"),
        *(b"POST ", b"GET / ", b"Host: x\r\n", b"Connection: close\r\n", b"\r\n\r\n", ECHO),
        b"Expect: 100-continue\r\n",
        *(b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n"),
    ]
)


@settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(seed=st.integers(0, 2**32), pieces=st.lists(ALPHABET, min_size=1, max_size=12))
def test_no_mutation_of_a_call_crashes_desyncs_or_leaks(seed: int, pieces: list[bytes]):
    """A mutated call of one caller never shows bytes of another's, and never breaks the server.

    What the instance saw is what a strict reader of the same bytes would see: bodies that the
    mutant announced, never the victim's under the mutant's connection.
    """
    asyncio.run(_mutated(seed, pieces))


async def _mutated(seed: int, pieces: list[bytes]) -> None:
    rng = random.Random(seed)
    secret = "".join(rng.choices(string.ascii_lowercase, k=24)).encode()

    async def answer(incoming: Incoming) -> None:
        await incoming.answer(incoming.body)

    one = Instance(answer)
    await one.listen()
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(Path(directory), "w1")
        gateway = Gateway(control=control, journal=journal, limits=LIMITS)
        world = World()
        owner_id = world.user(spendable_rao=10**15)
        chute, key = world.chute(owner_id), world.key(owner_id).encode()
        world.instances[chute.chute_id] = (one.view(chute.chute_id),)
        gateway.swap(world.snapshot())
        http = HttpLimits(max_per_address=None, head_timeout_s=0.5, keep_alive_s=1)
        async with planed(gateway, limits=http) as port:
            victim = call(key, LAST, body=secret)
            assert (await talk(port, victim)).endswith(secret)
            mutant = bytearray(call(key, body=b"hello") + call(key, LAST, body=b"bye"))
            for piece in pieces:
                at = rng.randrange(len(mutant))
                mutant[at : at + rng.choice((0, 0, len(piece)))] = piece
            attack = asyncio.create_task(_attack(port, bytes(mutant), rng))
            answers = [await talk(port, victim) for _ in range(2)]
            assert secret not in await attack
            assert all(one.endswith(b"\r\n\r\n" + secret) for one in answers)
            assert all(one.count(b"HTTP/1.1 ") == 1 for one in answers)
            await asyncio.wait_for(gateway.quiet(), PATIENCE_S)
            assert gateway.stats()["slots"] == gateway.stats()["body_bytes"] == 0
        bodies = [incoming.body for incoming in one.calls]
        assert bodies.count(secret) == 3
        await gateway.close()
        journal.close()
    await one.close()


async def _attack(port: int, data: bytes, rng: random.Random) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    at = rng.randrange(len(data))
    try:
        writer.write(data[:at])
        await writer.drain()
        writer.write(data[at:])
        await writer.drain()
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionError:
        return b""
    finally:
        writer.close()
