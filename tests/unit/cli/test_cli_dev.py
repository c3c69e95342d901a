"""dev, run --dev-job-method: what a developer does before anything is built."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import httpx
import pytest

from chutes_core.cli import dev

WAIT_S = 60
CODE = dedent(
    """
    from chutes.chute import Chute

    chute = Chute(username="bob", name="app", image="bob/app:1")

    @chute.on_startup()
    async def start(self):
        self.word = "{word}"

    @chute.cord(public_api_path="/word", public_api_method="GET")
    async def word(self) -> str:
        return self.word

    @chute.job(timeout=60)
    async def write(self, text: str, output_dir: str):
        if text == "fail":
            raise ValueError("no text")
        with open(output_dir + "/out.txt", "w") as file:
            file.write(self.word + text)
        return {{"length": len(text)}}
    """
)


def write(word):
    """Write the file as an editor does: complete at once."""
    fresh = Path("app.py.new")
    fresh.write_text(CODE.format(word=word) if word else "chute = (")
    fresh.replace("app.py")


@pytest.mark.timeout(200)
def test_dev_serves_again_after_an_edit_at_the_same_address():
    """An edit is served without another command; one that does not load waits for the next."""
    write("one")
    command = [sys.executable, "-c", "from chutes_core.cli.main import main; exit(main())"]
    process = subprocess.Popen(
        [*command, "dev", "app:chute", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert answer_of(url) == "one"
        write("two")
        wait_for(url, "two")
        write(None)
        write("three")
        wait_for(url, "three")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_S)
    assert process.returncode == 130


def answer_of(url):
    with httpx.Client(base_url=url, timeout=WAIT_S, trust_env=False) as client:
        return client.get("/word").json()


def wait_for(url, word):
    deadline = time.monotonic() + WAIT_S
    found = None
    while found != word:
        assert time.monotonic() < deadline, f"{found} instead of {word}"
        try:
            found = answer_of(url)
        except httpx.TransportError:
            continue  # the child that was asked is the one that ended


class Child:
    """A process that runs until it is told otherwise."""

    def __init__(self, ends_with=None):
        self.returncode = ends_with
        self.stopped = False

    def poll(self):
        return self.returncode

    def terminate(self):
        self.stopped, self.returncode = True, -15

    def wait(self, timeout=None):
        return self.returncode


def test_a_change_ends_the_child_and_starts_another(capsys):
    """The names of the changed files are told; nothing else happens while nothing changes."""
    children, looks = [], iter([{"a.py": (1, 1)}] * 3 + [{"a.py": (2, 1)}] * 2)

    def start():
        children.append(Child())
        return children[-1]

    with pytest.raises(StopIteration):
        dev.serve(start, lambda: next(looks), reload=True, sleep=lambda _: None)
    assert [child.stopped for child in children] == [True, True]
    assert "changed: a.py" in capsys.readouterr().err


def test_without_reload_the_end_of_the_child_is_the_end():
    """Its exit code is handed on."""
    code = dev.serve(lambda: Child(ends_with=2), dict, reload=False, sleep=lambda _: None)
    assert code == 2


def test_caches_and_environments_are_not_looked_at(tmp_path):
    """Only the developer's own Python files count."""
    for name in ("a.py", "sub/b.py", "venv/c.py", ".hidden/d.py", "__pycache__/e.py", "f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert set(dev.stamps(tmp_path)) == {"a.py", "sub/b.py"}


def test_a_job_runs_here_and_its_files_are_named(run):
    """--dev-job-method runs the hooks and the job, and says what it returned and left."""
    write("w")
    Path("in.json").write_text('{"text": "abc"}')
    done = run(
        *("run", "app:chute", "--dev", "--dev-job-method", "write", "--json"),
        *("--dev-job-data-path", "in.json", "--output-dir", "out"),
    )
    assert done.code == 0
    assert done.json["result"] == {"length": 3}
    assert done.json["files"] == ["out.txt"]
    assert Path("out/out.txt").read_text() == "wabc"


@pytest.mark.parametrize(
    ("job", "data", "code"),
    [
        ("write", '{"text": "fail"}', "job_failed"),
        ("none", "{}", "no_such_job"),
        ("write", "[]", "bad_job_data"),
        ("write", "{", "bad_job_data"),
    ],
)
def test_a_job_that_cannot_run_is_no_success(run, job, data, code):
    """What is wrong has a code, and the command does not exit 0."""
    write("w")
    Path("in.json").write_text(data)
    done = run(
        *("run", "app:chute", "--dev", "--dev-job-method", job, "--json"),
        *("--dev-job-data-path", "in.json"),
    )
    assert (done.code, done.json["error"]["code"]) == (2, code)
