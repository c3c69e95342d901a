"""A job in a real runner process, over real sealed connections."""

import json
import os
import uuid

import pytest

from chutes_core.wire.frames import FrameKind
from chutes_core.wire.job import JobFileQuery, JobOrder, JobQuery, JobReport

CODE = """
import os
import subprocess
from pathlib import Path

from chutes.chute import Chute

chute = Chute(username="bob", name="demo", image="bob/app:1")


@chute.job()
async def leave(self, output_dir: str, text: str) -> dict:
    folder = Path(output_dir)
    (folder / "sub").mkdir()
    (folder / "sub" / "text.txt").write_text(text * 100_000)
    (folder / "swapped").write_text("mine")
    (folder / "secret").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    Path(os.environ["MARK"]).write_text(output_dir)
    return {"length": len(text)}
"""


@pytest.fixture(scope="module")
def runner(start_runner, tmp_path_factory):
    """A proven runner whose chute has a job."""
    found = start_runner()
    found.prove()
    mark = tmp_path_factory.mktemp("mark") / "mark"
    assert found.start(str(mark), code=CODE).kind is FrameKind.STARTED
    found.mark = mark
    return found


def say(runner, kind, message):
    return runner.ask(kind, message.model_dump_json().encode())


def finished(runner, job_id):
    """Ask until the job has ended; the asking itself is what is waited on."""
    for _ in range(10_000):
        frame = say(runner, FrameKind.JOB_ASK, JobQuery(job_id=job_id))
        report = JobReport.model_validate_json(frame.payload)
        if report.status is not None:
            return report
    raise AssertionError("the job does not end")


def fetch(runner, job_id, name):
    query = JobFileQuery(job_id=job_id, name=name)
    with runner.blocking(generation=1) as connection:
        connection.send(FrameKind.JOB_FILE, query.model_dump_json().encode())
        frames = [connection.receive(30)]
        while frames[-1].kind is FrameKind.BODY:
            frames.append(connection.receive(30))
    if frames[-1].kind is FrameKind.ERROR:
        return frames[-1].json()["code"]
    return b"".join(frame.payload for frame in frames[:-1])


def test_a_job_runs_once_tells_its_end_and_gives_plain_files_alone(runner):
    """No link, no pipe; a file that was swapped for a link after the report is refused."""
    job_id = str(uuid.uuid4())
    order = JobOrder(
        job_id=job_id, name="leave", arguments='{"text": "ab"}', limit_s=60, upload=True
    )
    unknown = order.model_copy(update={"name": "nobody"})
    assert say(runner, FrameKind.JOB, unknown).json()["code"] == "no_such_job"
    assert say(runner, FrameKind.JOB, order).kind is FrameKind.OK
    report = finished(runner, job_id)
    assert (report.status, json.loads(report.result)) == ("complete", {"length": 2})
    assert [(f.name, f.size_bytes) for f in report.files] == [
        ("sub/text.txt", 200_000),
        ("swapped", 4),
    ]
    assert fetch(runner, job_id, "sub/text.txt") == b"ab" * 100_000
    assert fetch(runner, job_id, "secret") == "no_such_file"
    assert fetch(runner, job_id, "../../../etc/passwd") == "no_such_file"
    folder = runner.mark.read_text()
    os.unlink(f"{folder}/swapped")
    os.symlink("/etc/passwd", f"{folder}/swapped")
    assert fetch(runner, job_id, "swapped") == "no_such_file"
    assert say(runner, FrameKind.JOB, order).kind is FrameKind.OK  # a restarted validator asks
    assert finished(runner, job_id) == report
    other = order.model_copy(update={"job_id": str(uuid.uuid4())})
    assert say(runner, FrameKind.JOB, other).json()["code"] == "job_runs"
    strange = say(runner, FrameKind.JOB_ASK, JobQuery(job_id=other.job_id))
    assert strange.json()["code"] == "no_such_job"
    assert say(runner, FrameKind.JOB, order.model_copy(update={"upload": False})).json()
