"""`chutes build --local` and `chutes run --dev` in the container that it makes."""

import json
import os
import shlex
import subprocess
import sys
import time
import uuid
from textwrap import dedent

import httpx
import pytest

from scripts.runtimes import ensure_base_image

pytestmark = pytest.mark.timeout(600)

WAIT_S = 120
CHUTES = (sys.executable, "-c", "from chutes_core.cli.main import main; exit(main())")


def command(*words, folder, check=True):
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=500, check=False
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def chute(tmp_path):
    """A folder with a chute whose image holds a file; its images are removed afterwards."""
    ensure_base_image()
    name = f"local-{uuid.uuid4().hex[:8]}"
    (tmp_path / "note.txt").write_text("from the image")
    (tmp_path / "hello.py").write_text(
        dedent(
            f"""
            from chutes.chute import Chute
            from chutes.image import Image

            image = Image("bob", "{name}", "1").add("note.txt", "/srv/note.txt").with_env("A", "b")
            chute = Chute(username="bob", name="hello", image=image)

            @chute.on_startup()
            async def start(self):
                with open("/srv/note.txt") as file:
                    self.note = file.read()

            @chute.cord(public_api_path="/note", public_api_method="GET")
            async def note(self) -> str:
                return self.note
            """
        )
    )
    yield tmp_path
    for tag in ("1-dev", "1"):
        command("docker", "rmi", "-f", f"bob/{name}:{tag}", folder=tmp_path, check=False)


def test_a_chute_is_served_in_its_own_container(chute):
    """Built here, without a validator; the printed command serves it with what the image has."""
    printed = command(*CHUTES, "build", "hello:chute", "--local", "--json", folder=chute)
    made = json.loads(printed)
    words = shlex.split(made["run"].replace("$PWD", str(chute)))
    assert words[:3] == ["docker", "run", "--rm"]
    words[2:3] = ["-d", "--rm"]
    words[words.index("8000:8000")] = "127.0.0.1::8000"  # any free port of this machine
    container = command(*words, folder=chute).strip()
    try:
        place = command("docker", "port", container, "8000", folder=chute).split()[0]
        assert answer_of(f"http://{place}/note") == "from the image"
    finally:
        print(command("docker", "logs", container, folder=chute, check=False))
        command("docker", "rm", "-f", container, folder=chute, check=False)


def answer_of(url):
    """Return the answer, once there is one."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            with httpx.Client(trust_env=False, timeout=WAIT_S) as client:
                return client.get(url).json()
        except httpx.TransportError:
            assert time.monotonic() < deadline, "the container does not answer"
            time.sleep(0.2)


def test_a_dockerfile_that_fails_is_no_success(chute):
    """The command ends as `docker build` did, with a code, and keeps no image."""
    text = (chute / "hello.py").read_text().replace('.with_env("A", "b")', '.run_command("false")')
    (chute / "hello.py").write_text(text)
    done = subprocess.run(
        [*CHUTES, "build", "hello:chute", "--local", "--json", "--quiet"],
        cwd=chute,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "build_failed"
