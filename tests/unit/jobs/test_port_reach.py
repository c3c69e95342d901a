"""Ways to ports of jobs: what cannot be looked after is closed, and nobody has all of them."""

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest

from chutes_core.base.errors import Exhausted, Unauthenticated
from chutes_core.validator.domain.jobs import JobPort, JobState
from chutes_core.validator.jobs.ports import reach as reach_module
from chutes_core.validator.jobs.ports.reach import Reach

PATIENCE_S = 30.0
WEB = JobPort("web", 8000, "http")


def run(job_id="job", user_id="bob"):
    return SimpleNamespace(job_id=job_id, user_id=user_id, state=JobState.RUNNING, ports=(WEB,))


JOB = run()


class Connection:
    aborted = False

    def abort(self):
        self.aborted = True

    async def receive(self):
        await asyncio.Event().wait()


def revoked():
    raise Unauthenticated("bad_key", "revoked")


def broken():
    raise RuntimeError("no more threads")


def reach_to(connection, monkeypatch, *, check_s=0.0):
    async def connect(self, job, port):
        return connection

    monkeypatch.setattr(Reach, "_connect", connect)
    store = SimpleNamespace(jobs=SimpleNamespace(get=lambda job_id: JOB))
    return Reach(store, lambda launch: None, check_s=check_s)


@pytest.mark.parametrize("allowed", [revoked, broken])
async def test_a_way_whose_right_is_not_known_any_more_is_over(monkeypatch, allowed):
    """A refusal ends a way, and so does a failure of whoever would have to refuse."""
    connection = Connection()
    reach = reach_to(connection, monkeypatch)
    async with reach.open(JOB, "web", allowed) as way:
        await asyncio.wait_for(way.over.wait(), PATIENCE_S)
        assert reach.ways == 1
    assert reach.ways == 0
    assert connection.aborted


async def test_one_users_runs_do_not_take_all_ways(monkeypatch):
    """Above a number of their own a user is refused, whichever run it is; others are not."""
    monkeypatch.setattr(reach_module, "MAX_WAYS_PER_USER", 2)
    reach = reach_to(Connection(), monkeypatch, check_s=3600.0)
    async with AsyncExitStack() as ways:
        for number in range(2):
            await ways.enter_async_context(reach.open(run(f"job-{number}"), "web", revoked))
        with pytest.raises(Exhausted) as refused:
            await ways.enter_async_context(reach.open(run("job-2"), "web", revoked))
        assert refused.value.code == "too_many_port_connections"
        await ways.enter_async_context(reach.open(run("job-3", "eve"), "web", revoked))
        assert reach.ways == 3
    async with reach.open(run("job-2"), "web", revoked):
        assert reach.ways == 1
