"""Jobs: what is declared, and how one ends that runs here."""

import asyncio

import pytest

from chutes_core.base.errors import Conflict, Invalid
from chutes_core.sdk.chute import Chute
from chutes_core.sdk.job import SSH_PORT, JobResult, Port


@pytest.fixture
def chute():
    return Chute(username="bob", name="jobs", image="bob/app:1")


def test_ssh_declares_its_port(chute):
    """A job with ssh=True also lists the port of the login."""

    @chute.job(ports=[{"name": "web", "port": 8080, "proto": "http"}], ssh=True)
    async def serve(self) -> None: ...

    assert [port["port"] for port in serve.to_api()["ports"]] == [8080, SSH_PORT]
    with pytest.raises(Conflict, match="port_declared_twice"):
        chute.job(ports=[Port(name="a", port=SSH_PORT)], ssh=True)(serve.callable)


@pytest.mark.parametrize("timeout", [0, 29, 86_401])
def test_a_time_limit_has_bounds(chute, timeout):
    """A limit is thirty seconds to a day, or none."""
    with pytest.raises(Invalid, match="bad_timeout"):
        chute.job(timeout=timeout)(_work)


async def test_what_a_job_leaves_in_its_folder_is_its_upload(chute, tmp_path):
    """A finished job tells its result and its files; without upload no files."""

    async def train(self, *, output_dir, steps, **rest):
        with open(f"{output_dir}/model.bin", "wb") as file:  # noqa: ASYNC230 - a test
            file.write(bytes(steps))
        return {"steps": steps, **rest}

    kept, dropped = chute.job()(train), chute.job(upload=False)(train)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    done = await kept.run(tmp_path / "a", steps=3, seed=1)
    assert done == JobResult("complete", {"steps": 3, "seed": 1}, files=("model.bin",))
    assert (await dropped.run(tmp_path / "b", steps=3)).files == ()


async def test_a_sync_job_without_a_place_for_the_folder_runs(chute, tmp_path):
    """A plain function runs in a thread and gets only what it asks for."""

    def add(self, a, b):
        return a + b

    assert (await chute.job()(add).run(tmp_path, a=1, b=2)).result == 3


async def test_a_job_that_fails_says_what_it_raised(chute, tmp_path):
    """An error of the function is the job's end, and no error of the caller."""

    async def broken(self):
        raise TimeoutError("no disk")

    done = await chute.job(timeout=30)(broken).run(tmp_path)
    assert (done.status, done.detail) == ("error", "TimeoutError: no disk")


async def test_a_job_that_cancels_itself_is_cancelled(chute, tmp_path):
    """A job may end itself."""

    async def leave(self):
        raise asyncio.CancelledError

    assert (await chute.job()(leave).run(tmp_path)).status == "cancelled"


async def test_a_job_is_stopped_at_its_limit(chute, tmp_path):
    """Past its limit the function is cancelled, and has ended when the result is there."""
    seen = []

    async def forever(self):
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("ended")

    job = chute.job(timeout=30)(forever)
    job.timeout = 0.01
    assert (await job.run(tmp_path)).status == "timeout"
    assert seen == ["ended"]


def test_calling_a_job_says_how_to_run_it(chute):
    """A job is no function that answers; the error says how one is run, there and here."""
    with pytest.raises(Invalid, match="job_called") as caught:
        chute.job()(_work)()
    assert "chutes jobs run jobs _work" in caught.value.hint
    assert "--dev-job-method" in caught.value.hint


async def _work(self) -> None: ...
