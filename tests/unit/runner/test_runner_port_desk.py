"""Ports at the instance: how many connections, and the runner's own port."""

import asyncio
from types import SimpleNamespace

import pytest

from chutes_core.base.errors import Conflict
from chutes_core.runner import job_socket, ports
from chutes_core.runner.ports import PortDesk
from chutes_core.wire.frames import Frame, FrameKind
from chutes_core.wire.job import PortOrder

JOB_ID = "00000000-0000-4000-8000-000000000001"
ORDER = PortOrder(job_id=JOB_ID, name="echo")


class Link:
    """The validator's connection: what it was told, and no frame until it vanishes."""

    def __init__(self):
        self.told = []
        self.connected = asyncio.Event()
        self.gone = asyncio.Event()
        self.aborted = False

    async def send(self, *frames):
        self.told += frames
        self.connected.set()

    async def send_error(self, error):
        self.told.append(error.code)

    async def next_frame(self):
        await self.gone.wait()

    def abort(self):
        self.aborted = True


class Jobs:
    def __init__(self, port):
        self.port = port
        self.over = asyncio.Event()

    def ports(self, job_id):
        if self.over.is_set():
            raise Conflict("job_not_running", "the job has ended")
        return [SimpleNamespace(name="echo", port=self.port, proto="tcp")], self.over


@pytest.fixture
async def served():
    """A server on loopback that takes connections and says nothing, and how many it has."""
    open_ones = set()

    async def accepted(reader, writer):
        open_ones.add(writer)
        await reader.read()
        open_ones.discard(writer)
        writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], open_ones
    server.close()


async def test_so_many_connections_an_instance_has(served, monkeypatch):
    """One more is refused by code, and its connection goes on; a place is free again at an end."""
    monkeypatch.setattr(ports, "MAX_CONNECTIONS", 1)
    desk = PortDesk(Jobs(served[0]))
    first, second = Link(), Link()
    serving = asyncio.ensure_future(desk.serve(first, ORDER))
    await first.connected.wait()
    assert not await desk.serve(second, ORDER)
    assert second.told == ["too_many_port_connections"]
    first.gone.set()
    assert await serving
    third = Link()
    again = asyncio.ensure_future(desk.serve(third, ORDER))
    await third.connected.wait()
    assert third.told == [(FrameKind.OK, b"")]
    third.gone.set()
    assert await again


async def test_the_runners_own_port_is_nobodys(served):
    """Not even where a job declares it."""
    desk, link = PortDesk(Jobs(served[0])), Link()
    desk.own_port = served[0]
    assert not await desk.serve(link, ORDER)
    assert link.told == ["port_taken"]


async def test_a_connection_ends_a_moment_after_its_job(served, monkeypatch):
    """Nothing is left open here or at the job's server, and a new one is refused."""
    monkeypatch.setattr(ports, "LAST_WORDS_S", 0.01)
    jobs, link = Jobs(served[0]), Link()
    desk = PortDesk(jobs)
    serving = asyncio.ensure_future(desk.serve(link, ORDER))
    await link.connected.wait()
    jobs.over.set()
    assert await serving
    assert link.aborted
    late = Link()
    assert not await desk.serve(late, ORDER)
    assert late.told == ["job_not_running"]


ANSWER = bytes(range(256)) * 64  # less than what is on its way at once


@pytest.fixture
async def hasty():
    """A server that answers at the first byte and closes, with what still comes left unread."""

    async def accepted(reader, writer):
        await reader.readexactly(1)
        writer.write(ANSWER)
        writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


class Uploading(Link):
    """A validator whose caller sends on and on, until the answer's end has come, and a bit more."""

    def __init__(self):
        super().__init__()
        self.more = 5
        self.parted = asyncio.Event()

    async def send_error(self, error):
        await super().send_error(error)
        self.parted.set()

    async def send(self, *frames):
        await super().send(*frames)
        if frames[-1][0] is FrameKind.END:
            self.parted.set()

    async def next_frame(self):
        await asyncio.sleep(0)
        if self.parted.is_set():
            self.more -= 1
        return Frame(FrameKind.BODY, bytes(60_000)) if self.more else None


@pytest.mark.parametrize("attempt", range(5))
async def test_an_answer_before_the_upload_has_ended_arrives_whole(hasty, attempt):
    """Its server has closed; all it said leaves before its end, or the cut, is told."""
    link = Uploading()
    assert await asyncio.wait_for(PortDesk(Jobs(hasty)).serve(link, ORDER), 60)
    bodies = [frame[1] for frame in link.told if frame[0] is FrameKind.BODY]
    assert b"".join(bodies) == ANSWER
    assert link.told[-1] in ((FrameKind.END, b""), "connection_lost")
    assert (link.more, link.aborted) == (0, True)


async def test_a_caller_who_never_stops_sending_to_a_job_that_is_gone_is_cut(hasty, monkeypatch):
    """After a while in which the answer may be read."""
    monkeypatch.setattr(job_socket, "LINGER_S", 0.0)
    monkeypatch.setattr(ports, "LINGER_S", 0.01)
    link = Uploading()
    link.more = 10**9
    assert await asyncio.wait_for(PortDesk(Jobs(hasty)).serve(link, ORDER), 60)
    assert link.aborted
