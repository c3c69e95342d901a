"""The job of an instance: its limit, its result, its files."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Invalid, NotFound
from chutes_core.runner import jobs
from chutes_core.runner.jobs import JobDesk, files_of, result_text
from chutes_core.sdk.chute import Chute
from chutes_core.wire.job import MAX_FILES, MAX_RESULT_BYTES, JobOrder

JOB_ID = "00000000-0000-4000-8000-000000000001"
CHUTE = Chute(username="bob", name="jobs", image="bob/app:1")


class Loop:
    """User code on the test's own loop; ``stuck`` never lets go."""

    def __init__(self):
        self.stuck = False

    def submit(self, coroutine):
        if self.stuck:
            coroutine.close()
            return asyncio.get_running_loop().create_future()
        return asyncio.ensure_future(coroutine)


def order(name, arguments="{}", **changes):
    fields = {"job_id": JOB_ID, "limit_s": 30, "upload": True}
    return JobOrder(name=name, arguments=arguments, **{**fields, **changes})


@pytest.fixture
def house(tmp_path):
    """Return a function that runs one job to its end and returns the report."""
    loop = Loop()

    async def run(function, arguments="{}", *, stuck=False, **changes):
        loop.stuck = stuck
        job = Chute(username="bob", name="jobs", image="bob/app:1").job()(function)
        folder = tmp_path / "out"
        folder.mkdir()
        desk = JobDesk(loop, lambda: [job], ManualClock(), new_folder=lambda: str(folder))
        desk.start(order(job.name, arguments, **changes))
        await desk._task
        await desk.close()
        return desk.report(JOB_ID)

    return SimpleNamespace(run=run, folder=tmp_path)


async def test_code_that_never_lets_go_has_ended_for_whoever_asks(house, monkeypatch):
    """Its loop is blocked; the session's own clock decides."""
    monkeypatch.setattr(jobs, "STUCK_S", -29.99)

    async def block(self): ...

    report = await house.run(block, stuck=True)
    assert (report.status, report.reason) == ("timeout", "job_timeout")


async def test_an_error_of_the_job_is_its_end(house):
    """Wrong arguments are one, too."""

    async def train(self, steps): ...

    report = await house.run(train, '{"stepps": 1}')
    assert (report.status, report.reason) == ("error", "job_failed")
    assert "stepps" in report.detail


async def test_an_error_with_half_a_character_can_be_told(house, monkeypatch):
    """What a job raises never breaks the report."""
    # What is logged of it could not go from a worker of xdist to its controller.
    monkeypatch.setattr(logging.getLogger("chutes"), "disabled", True)

    async def fail(self):
        raise RuntimeError("\ud800 half a character")

    report = await house.run(fail)
    assert (report.status, report.reason) == ("error", "job_failed")
    report.model_dump_json().encode()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (float("nan"), "bad_job_result"),
        ("x" * MAX_RESULT_BYTES, "result_too_large"),
        ({(1, 2): 3}, "bad_job_result"),
    ],
)
async def test_a_result_that_cannot_be_carried_is_an_error(house, value, code):
    """It says to write a file instead."""

    async def give(self):
        return value

    report = await house.run(give)
    assert (report.status, report.reason) == ("error", code)


class Mute:
    """Has no text; ``said`` is what the attempt raises."""

    def __init__(self, said):
        self.said = said

    def __str__(self):
        raise self.said


class Dumb(Exception):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize("said", [RuntimeError("no text"), Dumb(), TypeError("x" * 10_000)])
async def test_a_result_without_a_text_ends_the_job(house, said):
    """Else it would seem to run, and cost, until its limit."""

    async def give(self):
        return Mute(said)

    report = await house.run(give)
    assert report.status == "error"
    assert report.reason in ("job_failed", "bad_job_result")


def test_what_json_cannot_say_is_shown_as_text():
    """A path in a result is its text."""
    assert result_text({"a": ValueError("x")}) == '{"a": "x"}'


async def test_too_many_files_are_an_error_and_without_upload_they_are_none(house, monkeypatch):
    """Links, pipes and folders count for what is looked at."""
    monkeypatch.setattr(jobs, "MAX_FILES", 2)

    def leave(self, output_dir):
        for number in range(3):
            with open(f"{output_dir}/{number}", "w"):
                pass

    report = await house.run(leave)
    assert (report.status, report.reason) == ("error", "too_many_files")
    (house.folder / "out").rename(house.folder / "kept")
    report = await house.run(leave, upload=False)
    assert (report.status, report.files) == ("complete", ())


def test_a_tree_without_end_is_looked_at_in_part(tmp_path, monkeypatch):
    """Empty folders are not files, but they are not walked through for ever."""
    monkeypatch.setattr(jobs, "MAX_ENTRIES", 3)
    for number in range(5):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(Invalid, match="too_many_files"):
        files_of(tmp_path)
    assert MAX_FILES == 500


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "x" * 250 + "/" + "y" * 60])
def test_a_name_that_cannot_be_kept_is_refused(tmp_path, name):
    """No control character, no backslash, no endless path."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    with pytest.raises(Invalid, match="bad_file_name"):
        files_of(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "{", '{"self": 1}', '{"output_dir": "/"}'])
def test_arguments_that_are_no_object_are_refused(text):
    """Before anything runs."""

    @CHUTE.job()
    async def work(self): ...

    desk = JobDesk(Loop(), lambda: [work], ManualClock())
    with pytest.raises(Invalid, match="bad_job_data"):
        desk.start(order("work", text))
    with pytest.raises(NotFound, match="no_such_job"):
        desk.report(JOB_ID)
