"""One HTTP request to a job's port: what the job sees of it, what its caller sees, its bounds."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.validator.jobs.ports.proxy import (
    MAX_HEAD_BYTES,
    PortRequest,
    Proxy,
    ProxyLimits,
    check_head,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """The job's server: keeps what it is sent; ``says`` is what it answers, in pieces."""

    def __init__(self, *says, after=b"", ends=True):
        self.says = list(says)
        self.after = after  # it answers once it has seen this
        self.seen = b""
        self.changed = asyncio.Event()
        self.ends = ends

    async def receive(self):
        while self.after not in self.seen:
            self.changed.clear()
            await self.changed.wait()
        if self.says:
            return self.says.pop(0)
        if self.ends:
            self.ends = False
            return None
        await asyncio.Event().wait()
        return None

    async def send(self, data):
        self.seen += data
        self.changed.set()

    async def send_end(self):
        pass

    def abort(self):
        pass


class Caller:
    """Sends its body in pieces, then stays, or leaves; keeps the answer."""

    def __init__(self, *pieces, stays=True):
        self.pieces = list(pieces)
        self.stays = stays
        self.slow = False  # its body never ends
        self.whole = True
        self.messages = []

    async def receive(self):
        if self.pieces:
            piece = self.pieces.pop(0)
            more = self.slow or bool(self.pieces)
            return {"type": "http.request", "body": piece, "more_body": more}
        if self.whole and not self.slow:
            self.whole = False
            return {"type": "http.request", "body": b"", "more_body": False}
        if self.stays:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.messages.append(message)

    @property
    def status(self):
        return self.messages[0]["status"] if self.messages else None

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.messages)


def asked(method="GET", target=b"/", headers=()):
    return check_head(PortRequest(method, target, tuple(headers), "/jobs/j/ports/web", 8080))


async def proxied(server, caller, request=None, **limits):
    proxy = Proxy(server, request or asked(), ProxyLimits(**limits))
    return await proxy.run(caller.receive, caller.send)


async def test_the_request_is_written_anew_with_one_length():
    """A caller's own word on framing, host and connection does not pass; a body does, chunked."""
    server, caller = Server(OK, after=b"0\r\n\r\n"), Caller(b"abc", b"de")
    headers = (
        (b"Transfer-Encoding", b"chunked"),
        (b"Host", b"evil"),
        (b"Connection", b"close, x-a"),
    )
    request = asked("POST", b"/a?b=1", (*headers, (b"X-A", b"1"), (b"X-B", b"2")))
    assert await proxied(server, caller, request)
    head, _, body = server.seen.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /a?b=1 HTTP/1.1",
        b"host: 127.0.0.1:8080",
        b"x-b: 2",
        b"x-forwarded-prefix: /jobs/j/ports/web",
        b"transfer-encoding: chunked",
        b"connection: close",
    ]
    assert body == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert (caller.status, caller.body) == (200, b"ok")


tokens = st.text(alphabet="abcXYZ-_ \t\r\n\0:;,", max_size=12).map(str.encode)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(tokens, tokens), max_size=4), tokens, tokens)
def test_no_header_path_or_method_breaks_out_of_its_line(headers, method, target):
    """Whatever a caller sends is refused, or is one request with the lines that we wrote."""

    async def run():
        try:
            request = asked(method.decode(), b"/" + target, headers)
        except ChutesError as refusal:
            if refusal.code != "bad_port_request":
                raise
            return
        server = Server(OK, after=b"\r\n\r\n")
        await proxied(server, Caller(), request)
        assert server.seen.count(b"\r\n\r\n") == 1
        lines = server.seen.removesuffix(b"\r\n\r\n").split(b"\r\n")
        assert len(lines) == 1 + len(request.headers)
        assert lines[0].count(b" ") == 2
        assert b"\n" not in server.seen.replace(b"\r\n", b"")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("headers", "passed"),
    [
        (((b"content-length", b"5"),), b"abc"),
        (((b"content-length", b"2"),), b""),
        ((), b""),
    ],
)
async def test_a_body_of_another_length_than_announced_is_no_second_request(headers, passed):
    """It is refused; what was too much has not reached the job."""
    server, caller = Server(after=b"never"), Caller(b"abc")
    with pytest.raises(ChutesError) as refused:
        await proxied(server, caller, asked("POST", headers=headers))
    assert refused.value.code == "bad_port_request"
    assert server.seen.partition(b"\r\n\r\n")[2] == passed


async def test_too_large_a_body_is_413():
    """As soon as it is known."""
    caller = Caller(b"a" * 6, b"b" * 6, b"c" * 6)
    with pytest.raises(ChutesError) as refused:
        await proxied(
            Server(after=b"never"),
            caller,
            asked("POST", headers=((b"transfer-encoding", b"chunked"),)),
            body_bytes=10,
        )
    assert refused.value.code == "body_too_large"
    assert len(caller.pieces) == 1


@pytest.mark.parametrize("limits", [{"silence_s": 0.01}, {"request_s": 0.01}])
async def test_a_server_that_says_nothing_is_left(limits):
    """504 before an answer; cut after its beginning."""
    with pytest.raises(ChutesError) as refused:
        await proxied(Server(ends=False), Caller(), **limits)
    assert refused.value.code == "port_timeout"
    begun = Caller()
    assert not await proxied(
        Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", ends=False), begun, **limits
    )
    assert begun.messages[-1]["more_body"]


async def test_an_answer_before_the_body_has_ended_is_passed_on():
    """The rest of the body is not waited for."""
    caller = Caller(b"a" * 5, stays=True)
    caller.slow = True
    server = Server(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    request = asked("POST", headers=((b"content-length", b"10"),))
    assert await proxied(server, caller, request)
    assert caller.status == 403


class Hasty(Server):
    """Takes so much, is gone for whoever sends more, and only then is its answer read."""

    def __init__(self, *says, takes):
        super().__init__(*says)
        self.takes = takes
        self.gone = asyncio.Event()

    async def receive(self):
        await self.gone.wait()
        for _ in range(20):  # long after the sender has heard of it
            await asyncio.sleep(0)
        return await super().receive()

    async def send(self, data):
        await super().send(data)
        if len(self.seen) > self.takes:
            self.gone.set()
            raise Unavailable("connection_lost", "the peer closed the connection")


async def test_an_answer_of_a_server_that_has_closed_is_passed_on():
    """What it takes no more of is dropped; the answer that it gave before counts."""
    caller = Caller(*[b"a" * 1000] * 9)
    caller.slow = True
    server = Hasty(b"HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\n", b"long", takes=3000)
    request = asked("POST", headers=((b"content-length", b"10000"),))
    assert await proxied(server, caller, request)
    assert (caller.status, caller.body) == (413, b"long")


async def test_a_server_that_has_closed_without_an_answer_is_502():
    """As if nobody had sent."""
    caller = Caller(*[b"a" * 1000] * 9)
    request = asked("POST", headers=((b"content-length", b"9000"),))
    with pytest.raises(ChutesError) as refused:
        await proxied(Hasty(takes=3000), caller, request)
    assert (refused.value.code, caller.messages) == ("job_answer_cut", [])


async def test_a_caller_who_leaves_ends_it():
    """No answer is made up for nobody."""
    caller = Caller(stays=False)
    assert not await proxied(Server(ends=False), caller)
    assert caller.messages == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "job_answer_cut"),
        (b"HTTP/1.1 200 OK\r\nContent-Len", "job_answer_cut"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "bad_job_answer"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c: d\x00\r\n\r\n", "bad_job_answer"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "bad_job_answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "bad_job_answer"),
        (
            b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
            "bad_job_answer",
        ),
    ],
)
async def test_what_is_no_answer_is_502(answer, code):
    """By what h11 makes of it, and by its size; the caller has got nothing yet."""
    caller = Caller()
    with pytest.raises(ChutesError) as refused:
        await proxied(Server(*([answer] if answer else [])), caller)
    assert (refused.value.code, caller.messages) == (code, [])


async def test_an_answer_with_chunks_and_a_length_has_chunks():
    """The length that h11 overruled does not reach the caller."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"
    caller = Caller()
    assert await proxied(Server(answer + b"2\r\nok\r\n0\r\n\r\n"), caller)
    assert caller.body == b"ok"
    assert (
        not {b"content-length", b"transfer-encoding"} & dict(caller.messages[0]["headers"]).keys()
    )


async def test_a_page_of_a_job_acts_in_a_sandbox():
    """Whatever policy the job's server names."""
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Security-Policy: default-src *\r\nContent-Length: 0\r\n\r\n"
    )
    caller = Caller()
    assert await proxied(Server(answer), caller)
    policies = [v for n, v in caller.messages[0]["headers"] if n == b"content-security-policy"]
    assert policies == [b"sandbox"]
