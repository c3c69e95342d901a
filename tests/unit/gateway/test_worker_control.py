"""The control plane behind a worker: a request's two directions never wait for each other."""

import asyncio

from chutes_core.validator.gateway.workers.channel import Channel
from chutes_core.validator.gateway.workers.control import ControlStreams, RemoteControl

PATIENCE_S = 30.0
SCOPE = {"type": "http", "headers": [], "raw_path": b"/s", "query_string": b""}


class Wire(Channel):
    """A channel that hands each frame to the other side, in a later turn of the loop."""

    def __init__(self):
        self.take = None
        self.gone = False

    def send(self, kind, head, data=b"", *, stream=0):
        asyncio.get_running_loop().call_soon(self.take, kind, stream, head, data)


def joined(app):
    """Return the control plane as a worker reaches it."""
    up, down = Wire(), Wire()
    remote, streams = RemoteControl(), ControlStreams(app, down)
    up.take, down.take = streams.took, remote.took
    remote.use(up)
    return remote, streams


async def test_a_caller_who_takes_nothing_is_still_read_from():
    """While a piece of the answer waits to leave, the application hears what the caller sends."""
    heard, go_on, offered = asyncio.Event(), asyncio.Event(), asyncio.Event()
    sent = []

    async def app(scope, receive, send):
        sending = asyncio.ensure_future(send({"type": "http.response.body", "body": b"down"}))
        await offered.wait()
        for body in (b"1", b"2"):
            assert (await receive())["body"] == body
        heard.set()
        await sending

    async def receive(bodies=iter((b"1", b"2"))):  # noqa: B008 # one caller
        return {"type": "http.request", "body": next(bodies), "more_body": True}

    async def send(message):
        offered.set()
        await go_on.wait()
        sent.append(message["body"])

    remote, streams = joined(app)
    calling = asyncio.ensure_future(remote(SCOPE, receive, send))
    try:
        await asyncio.wait_for(heard.wait(), PATIENCE_S)
        go_on.set()
        await asyncio.wait_for(calling, PATIENCE_S)
    finally:
        calling.cancel()
        await streams.close()
    assert sent == [b"down"]


async def test_what_was_sent_before_is_begun_before_the_caller_is_asked():
    """An answer's start may change what the caller's next bytes are: it goes first."""
    order = []

    async def app(scope, receive, send):
        start = {"type": "http.response.start", "status": 101, "headers": []}
        sending = asyncio.ensure_future(send(start))
        await asyncio.gather(sending, receive())

    async def receive():
        order.append("asked")
        return {"type": "http.request", "body": b"", "more_body": True}

    async def send(message):
        order.append("begun")
        await asyncio.sleep(0)

    remote, streams = joined(app)
    try:
        await asyncio.wait_for(remote(SCOPE, receive, send), PATIENCE_S)
    finally:
        await streams.close()
    assert order == ["begun", "asked"]
