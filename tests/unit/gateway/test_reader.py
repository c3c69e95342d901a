"""A head that is known is not parsed again, and nothing else changes by that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chutes_core.validator.gateway.plane.reader import MAX_HEADS, Heads, Reader, Refused
from chutes_core.validator.gateway.plane.request import Request
from chutes_core.wire.http_server import MALFORMED, HttpLimits

LIMITS = HttpLimits()
REQUESTS = [
    b"POST /a HTTP/1.1\r\nHost: x\r\nX-Api-Key: k\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /a HTTP/1.1\r\nHost: x\r\nX-Api-Key: k\r\nContent-Length: 5\r\n\r\n\r\n\r\nx",
    b"POST /a HTTP/1.1\r\nHost: x\r\nX-Api-Key: k\r\nContent-Length: 0\r\n\r\n",
    b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /d HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\ny",
    b"GET /e HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"\r\nGET /f HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /g HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nzz",
    b"POST /h HTTP/1.1\r\nHost: x\r\n Folded: y\r\n\r\n",
    b"GET /i HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /j HTTP/1.1\nHost: x\n\n",
]


def read(pieces: list[bytes], heads: Heads | None) -> list[object]:
    """Return what a connection made of pieces; with ``heads`` known ones are looked up."""
    found: list[Request] = []
    reader = Reader(LIMITS, heads or Heads(), found.append)
    try:
        for piece in pieces:
            request = reader.known(piece) if heads is not None else None
            if request is not None:
                found.append(request)
            else:
                reader.feed(piece)
            if found and found[-1].complete and not found[-1].keep_alive:
                break  # the connection is closed after its answer
    except Refused:
        assert reader.refusal is not None
        return [*map(facts, found), reader.refusal.code]
    return list(map(facts, found))


def facts(request: Request) -> object:
    shape = request.shape
    line = (shape.method, shape.version, shape.url, shape.headers, shape.raw_path, shape.host)
    sizes = (request.length, request.size, request.received)
    return (line, request.body(), sizes, request.complete, request.keep_alive)


@st.composite
def connections(draw: st.DrawFn) -> list[bytes]:
    """Requests that repeat themselves, some cut in two and some glued to the next."""
    chosen = draw(st.lists(st.sampled_from(REQUESTS[:7]), min_size=1, max_size=3))
    chosen.append(draw(st.sampled_from(REQUESTS)))
    pieces: list[bytes] = []
    for request in draw(st.lists(st.sampled_from(chosen), max_size=12)):
        how = draw(st.sampled_from(("whole", "whole", "whole", "cut", "glued")))
        if how == "cut":
            at = draw(st.integers(1, len(request) - 1))
            pieces += [request[:at], request[at:]]
        elif how == "glued" and pieces:
            pieces[-1] += request
        else:
            pieces.append(request)
    return pieces


@given(lives=st.lists(connections(), min_size=1, max_size=3))
def test_known_heads_change_nothing(lives: list[list[bytes]]) -> None:
    """Whatever connections send, and whatever is remembered, the parser alone says the same."""
    heads = Heads()
    for pieces in lives:
        assert read(pieces, heads) == read(pieces, None)


def test_a_head_that_came_twice_is_known_to_all_connections() -> None:
    """The third request of one connection, and the first of another, need no parser."""
    heads = Heads()
    assert heads.request(REQUESTS[0]) is None
    read([REQUESTS[0]] * 2, heads)
    known = heads.request(REQUESTS[0][:-5] + b"other")
    assert known is not None
    assert known.body() == b"other"
    assert heads.request(REQUESTS[0] + b"more") is None
    assert heads.request(REQUESTS[0][:-1]) is None


def test_what_is_remembered_is_bounded() -> None:
    """Ever new heads do not fill the memory, and one that comes once is not kept at all."""
    heads = Heads()
    for number in range(MAX_HEADS + 10):
        once = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number
        read([once, once], heads)
        read([b"GET /once%d HTTP/1.1\r\nHost: x\r\n\r\n" % number], heads)
    assert 0 < len(heads._known) <= MAX_HEADS
    assert not [head for head in heads._known if b"once" in head]


def test_a_refused_connection_uses_no_known_head() -> None:
    """Where every request is to be refused, a known one is, too."""
    heads = Heads()
    read([REQUESTS[0]] * 2, heads)
    reader = Reader(LIMITS, heads, lambda request: None)
    assert reader.known(REQUESTS[0]) is not None
    reader.refusal = object()  # type: ignore[assignment]
    assert reader.known(REQUESTS[0]) is None


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "chutes-stream", "fk"])
@pytest.mark.parametrize(
    "framed", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
)
def test_a_wish_for_another_protocol_with_a_body_is_refused(protocol: str, framed: bytes) -> None:
    """The parser would take the body for the other protocol's bytes, and the call be without it."""
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %b\r\n"
    request = head % protocol.encode() + framed
    assert read([request], Heads()) == [MALFORMED.code]
    assert read([request[:40], request[40:]], None) == [MALFORMED.code]


def test_a_body_beside_an_upgrade_that_is_not_asked_for_is_read() -> None:
    """Without Connection: Upgrade the header asks for nothing, and the body is whole."""
    data = b"POST /a HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello"
    found: list[Request] = []
    Reader(LIMITS, Heads(), found.append).feed(data)
    assert [(request.body(), request.complete) for request in found] == [(b"hello", True)]
