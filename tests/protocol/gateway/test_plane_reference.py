"""Any request that strict HTTP allows is answered by the data plane as by its reference."""

import random

import pytest
from gateway_stand_in import DOMAIN
from test_plane_bytes import IN_ONE_FRAME, LAST, Two, blank, call, talk, two

assert two  # the fixture

HOWS = [*b"whole chunked refused failed raised none".split(), *(h.encode() for h in IN_ONE_FRAME)]
TARGETS = [
    *[b"POST /c/bob-echo/api/echo"] * 4,
    b"POST /c/bob-echo/api/echo?a=b&c=%20d",
    b"GET /c/bob-echo/api/look?x",
    b"HEAD /c/bob-echo/api/look",
    b"POST /c/bob-echo/api/none",
    b"POST /c/nobody/api/echo",
    b"POST /api/echo",  # of the host's chute, if it names one
    b"POST /v1/chat/completions",
    b"GET /v1/models",
    b"POST /chutes/%b/echo",
    b"GET /",
    b"PUT /chunked?q=1",
    b"GET /empty",
    b"HEAD /",
    b"OPTIONS *",
]
HEADERS = [
    b"X-Own: a b\tc",
    b"X-Own:twice",
    b"Content-Type: text/plain",
    b"Accept-Encoding: gzip",
    b"Cookie: a=b",
    b"X-Chutes-InvocationID: mine",
    b"X-Forwarded-For: 9.9.9.9",
    b"Connection: keep-alive, X-Own",
    b"Connection: x-own",
    b"TE: trailers",
    b"X-Empty:",
    b"X-Latin: \xe4",
]
BODIES = [
    b"",
    b"hello",
    b"x" * 5000,
    b"y" * 70_000,
    b'{"model":"model/bob-echo","n":1}',
    b'{"model":"bob/both","n":123456789012345678901}',
    b'{"args":[1],"kwargs":{}}',
]


def any_request(rng: random.Random, two: Two, *, last: bool) -> bytes:
    """Return a request that strict HTTP allows: of a call, or of the control plane."""
    target = rng.choice(TARGETS)
    if b"%b" in target:
        target %= two.chute_id.encode()
    host = b"bob-echo." + DOMAIN.encode() if rng.random() < 0.2 else b"x"
    keys = [*[b"X-Api-Key: " + two.key] * 6, b"Authorization: Bearer " + two.key, b"X-Api-Key: no"]
    lines = [target + b" HTTP/1.1", b"Host: " + host, rng.choice(keys)]
    lines += [b"X-How: " + rng.choice(HOWS)] if rng.random() < 0.5 else []
    lines += rng.sample(HEADERS, rng.choice((0, 0, 1, 3)))
    body = b"" if target.startswith((b"GET", b"HEAD", b"OPTIONS")) else rng.choice(BODIES)
    lines += [LAST] if last else []
    if body and rng.random() < 0.3:
        cut = rng.randrange(1, len(body) + 1)
        pieces = [piece for piece in (body[:cut], body[cut:]) if piece]
        framed = b"".join(b"%x;e=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return b"\r\n".join((*lines, b"Transfer-Encoding: chunked", b"", framed + b"0\r\n\r\n"))
    if body or rng.random() < 0.5:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join((*lines, b"", body))


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_asked_the_answers_are_the_references_bytes(two: Two, seed: int):
    """Connections of one to four requests of any kind, whole or in pieces; so sees the chute."""
    rng = random.Random(seed)
    for _ in range(40):
        count = rng.choice((1, 1, 2, 4))
        data = b"".join(any_request(rng, two, last=n == count - 1) for n in range(count))
        plane, seen = blank(await talk(two.plane, data, rng)), two.taken()
        reference, also_seen = blank(await talk(two.reference, data, rng)), two.taken()
        assert plane == reference, data
        assert seen == also_seen, data
        assert plane.startswith(b"HTTP/1.1 "), data


@pytest.mark.parametrize("how", [b"chunked", b"one-chunked", b"whole"])
async def test_a_caller_of_http_1_0_gets_no_chunks(two: Two, how: bytes):
    """The end of the connection is the end of the answer (the reference knows only 1.1 there)."""
    asked = call(two.key, b"X-How: " + how).replace(b"HTTP/1.1", b"HTTP/1.0")
    head, _, body = (await talk(two.plane, asked)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head
    said = {b"chunked": b"data: 1\n\ndata: 2\n\n", b"one-chunked": b"12345", b"whole": b"hello"}
    assert body == said[how]
