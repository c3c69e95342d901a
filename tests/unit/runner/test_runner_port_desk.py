"""Ports at the instance: how many connections, and the runner's own port."""

import asyncio
from types import SimpleNamespace

import pytest

from chutes_core.base.errors import Conflict
from chutes_core.runner import ports
from chutes_core.runner.ports import PortDesk
from chutes_core.wire.frames import FrameKind
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
