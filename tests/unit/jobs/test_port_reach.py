"""A way to a job's port that cannot be looked after is closed, whatever the reason."""

import asyncio
from types import SimpleNamespace

import pytest

from chutes_core.base.errors import Unauthenticated
from chutes_core.validator.domain.jobs import JobPort, JobState
from chutes_core.validator.jobs.ports.reach import Reach

PATIENCE_S = 30.0
JOB = SimpleNamespace(job_id="job", state=JobState.RUNNING, ports=(JobPort("web", 8000, "http"),))


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


@pytest.mark.parametrize("allowed", [revoked, broken])
async def test_a_way_whose_right_is_not_known_any_more_is_over(monkeypatch, allowed):
    """A refusal ends a way, and so does a failure of whoever would have to refuse."""
    connection = Connection()

    async def connect(self, job, port):
        return connection

    monkeypatch.setattr(Reach, "_connect", connect)
    store = SimpleNamespace(jobs=SimpleNamespace(get=lambda job_id: JOB))
    reach = Reach(store, lambda launch: None, check_s=0)
    async with reach.open(JOB, "web", allowed) as way:
        await asyncio.wait_for(way.over.wait(), PATIENCE_S)
        assert reach.ways == 1
    assert reach.ways == 0
    assert connection.aborted
