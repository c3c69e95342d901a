"""A runner that stood by: it is attested and serves like any other, and is nobody's before."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from chutes_core.wire.frames import FrameKind

WAIT_S = 60.0


def test_what_stood_by_is_attested_and_serves(start_runner, tmp_path):
    """With two GPUs: the whole proof, START, the environment's secrets, and no prover left."""
    runner = start_runner(2, stand_by=True)
    runner.prove()
    assert runner.children() == []
    frame = runner.start(str(tmp_path / "mark"))
    assert frame.kind is FrameKind.STARTED
    runner.process.send_signal(signal.SIGTERM)
    assert runner.wait() == 0
    assert (tmp_path / "mark").read_text() == "ended"


def test_a_stand_by_proves_more_gpus_than_provers_waited(start_runner):
    """Idle GPUs beside the instance get provers of their own."""
    slots = [{"index": i, "uuid": f"GPU-{i}", "declare": "h100_sxm"} for i in range(2)]
    runner = start_runner(1, stand_by=True, CHUTES_RUNNER_GPUS=json.dumps(slots))
    runner.gpus = 2
    runner.prove()


@pytest.fixture
def waiting():
    """A runner that waits for its launch."""
    environ = {
        "PATH": os.environ["PATH"],
        "CHUTES_RUNNER_STAND_BY": json.dumps({"provers": 1, "declared": True}),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "chutes_core.runner"],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    yield process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def test_the_end_of_its_stdin_ends_a_stand_by(waiting):
    """A miner that was killed leaves none behind."""
    waiting.stdin.close()
    assert waiting.wait(WAIT_S) == 0
    assert waiting.stdout.read() == b""  # it never said where it listens


def test_a_signal_ends_a_stand_by(waiting):
    """An engine's stop is heeded, whenever it comes."""
    while waiting.poll() is None:  # before its handler is there the signal's default ends it, too
        waiting.send_signal(signal.SIGTERM)
        try:
            waiting.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    assert waiting.returncode in (0, -signal.SIGTERM)


@pytest.mark.parametrize("line", [b"[]\n", b"no json\n", b"x" * 300_000 + b"\n", b"{}\n"])
def test_a_line_that_is_no_environment_ends_a_stand_by(waiting, line):
    """Rubbish, too much, and an environment without a launch are bad settings, said on stderr."""
    with contextlib.suppress(BrokenPipeError):  # it may end before it has read all
        waiting.stdin.write(line)
        waiting.stdin.flush()
    assert waiting.wait(WAIT_S) == 2
    assert b"bad_order" in waiting.stderr.read() or line == b"{}\n"


def test_what_is_to_be_made_ready_must_be_said_well():
    """An unreadable CHUTES_RUNNER_STAND_BY is a bad setting."""
    done = subprocess.run(
        [sys.executable, "-m", "chutes_core.runner"],
        env={"PATH": os.environ["PATH"], "CHUTES_RUNNER_STAND_BY": "yes"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 2
    assert b"bad_setting" in done.stderr
