"""START, STOP, leases and signals, against real runner processes."""

import json
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from chutes_core.wire.frames import FrameKind
from chutes_core.wire.sealing import KeyPair

BROKEN = """
from chutes.chute import Chute

chute = Chute(username="bob", name="demo", image="bob/app:1")


@chute.on_startup()
async def begin(self):
    import os
    raise ValueError("no weights; the token is " + os.environ["TOKEN"])
"""
SLOW_END = """
import os
import time
from pathlib import Path
from chutes.chute import Chute

chute = Chute(username="bob", name="demo", image="bob/app:1")


@chute.on_shutdown()
def end(self):
    Path(os.environ["MARK"]).write_text("began to end")
    time.sleep(3600)


@chute.cord()
def busy(self) -> str:
    Path(os.environ["MARK"]).write_text("called")
    time.sleep(1)
    return "done"
"""
STOP = json.dumps({"reason": "scale down", "grace_s": 5}).encode()


@pytest.fixture
def mark_path(tmp_path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def proven(start_runner):
    runner = start_runner(CHUTES_RUNNER_SHUTDOWN_HOOKS_S="1")
    runner.prove()
    return runner


def begin_call(connection, path):
    head = {"invocation_id": str(uuid.uuid4()), "method": "POST", "path": path}
    connection.send(FrameKind.CALL, json.dumps(head).encode())
    connection.send(FrameKind.BODY, b'{"args":[],"kwargs":{}}')
    connection.send(FrameKind.END)


def test_started_names_the_cords(proven, mark_path):
    """STARTED carries each cord with its paths, and a repeated START gets the same answer."""
    frame = proven.start(str(mark_path))
    assert frame.kind is FrameKind.STARTED
    cords = {cord["function"]: cord for cord in frame.json()["cords"]}
    assert cords["echo"]["public_api_path"] == "/v1/echo"
    assert cords["count"]["stream"] is True
    again = proven.ask(FrameKind.START, proven.order.model_dump_json().encode())
    assert (again.kind, again.json()) == (FrameKind.STARTED, frame.json())
    other = proven.order.model_copy(update={"version": str(uuid.uuid4())})
    refused = proven.ask(FrameKind.START, other.model_dump_json().encode())
    assert refused.json()["code"] == "already_started"


def test_a_failed_start_brings_the_end_of_the_traceback(proven, mark_path):
    """ERROR start_failed has the failing line and the exception, and no secret."""
    error = proven.start(str(mark_path), code=BROKEN).json()
    assert error["code"] == "start_failed"
    assert "ValueError: no weights; the token is ***" in error["message"]
    assert "very-secret-token" not in error["message"]
    assert len(error["message"]) <= 4000
    assert proven.process.poll() is None
    assert proven.ask(FrameKind.STOP, STOP).kind is FrameKind.OK
    assert proven.wait() == 0
    assert "very-secret-token" not in proven.errors()


def test_code_that_does_not_load_is_a_failed_start(proven, mark_path):
    """A syntax error is start_failed with the line."""
    error = proven.start(str(mark_path), code="import chutes\nthis is no python\n").json()
    assert error["code"] == "start_failed"
    assert "line 2" in error["message"]


def test_reserved_variables_are_refused(proven, mark_path):
    """An order cannot steer the runner, Python or the linker, and may then come corrected."""
    for name in ("CHUTES_RUNNER_PORT", "PYTHONPATH", "LD_PRELOAD", "no name"):
        error = proven.start(str(mark_path), env={name: "x"}).json()
        assert error["code"] == "bad_env"
    assert proven.start(str(mark_path)).kind is FrameKind.STARTED


def test_an_order_with_wrong_fields_shows_no_value(proven, mark_path):
    """A malformed START is refused by field name alone."""
    error = proven.ask(FrameKind.START, b'{"secrets": {"TOKEN": ["hush"]}}').json()
    assert error["code"] == "bad_order"
    assert "hush" not in error["message"]


def test_stop_runs_shutdown_hooks_and_exits_0(proven, mark_path):
    """STOP is answered OK, hooks run, the exit status is 0, user output went to stderr."""
    proven.start(str(mark_path))
    assert proven.ask(FrameKind.STOP, STOP).kind is FrameKind.OK
    assert proven.wait() == 0
    assert mark_path.read_text() == "ended"
    errors = proven.errors()
    assert "hook says hello" in errors
    assert "scale down" in errors


def test_stop_lets_running_calls_finish_and_refuses_new_ones(proven, mark_path, wait_for_text):
    """A running call gets its answer during the grace time; a new one gets ERROR draining."""
    proven.start(str(mark_path), code=SLOW_END)
    with proven.blocking(generation=1) as busy, proven.blocking(generation=1) as other:
        begin_call(busy, "/busy")
        wait_for_text(mark_path, "called")
        other.send(FrameKind.STOP, STOP)
        assert other.receive(60).kind is FrameKind.OK
        begin_call(other, "/busy")
        assert other.receive(60).json()["code"] == "draining"
        kinds = [busy.receive(60).kind for _ in range(3)]
        assert kinds == [FrameKind.RESPONSE, FrameKind.BODY, FrameKind.END]
    assert proven.wait() == 0


def test_a_shutdown_hook_that_hangs_is_cut_off(proven, mark_path):
    """A hook that never returns does not keep the process."""
    proven.start(str(mark_path), code=SLOW_END)
    proven.ask(FrameKind.STOP, STOP)
    assert proven.wait() == 0
    assert mark_path.read_text() == "began to end"
    assert "shutdown_failed" in proven.errors()


def test_sigterm_runs_shutdown_hooks_and_exits_0(proven, mark_path):
    """SIGTERM ends a serving instance like STOP."""
    proven.start(str(mark_path))
    proven.process.send_signal(signal.SIGTERM)
    assert proven.wait() == 0
    assert mark_path.read_text() == "ended"
    assert proven.children() == []


def test_sigterm_ends_an_instance_whose_loop_is_blocked(start_runner, mark_path, wait_for_text):
    """User code that blocks the main thread cannot hold the process."""
    runner = start_runner(CHUTES_RUNNER_SHUTDOWN_HOOKS_S="0.2", CHUTES_RUNNER_SIGTERM_GRACE_S="0.2")
    runner.prove()
    runner.start(str(mark_path))
    with runner.blocking(generation=1) as connection:
        begin_call(connection, "/block_the_loop")
        wait_for_text(mark_path, "blocked")
        runner.process.send_signal(signal.SIGTERM)
        assert runner.wait() == 0


def test_no_start_in_time_ends_the_process(start_runner):
    """Without START the first lease lapses: exit status 3, the reason on stderr."""
    runner = start_runner(CHUTES_RUNNER_FIRST_LEASE_S="0.3")
    assert runner.wait() == 3
    assert "no START came in time" in runner.errors()


def test_a_lapsed_lease_ends_the_process_after_its_hooks(proven, mark_path):
    """Without renewal the instance runs its hooks and exits with status 3."""
    proven.start(str(mark_path), lease_until_s=int(time.time()) + 4)
    assert proven.wait() == 3
    assert mark_path.read_text() == "ended"
    assert "lease" in proven.errors()


def test_a_renewal_prolongs_and_an_early_one_is_refused(proven, mark_path):
    """RENEW before START is refused; afterwards it keeps the process alive."""
    until = {"lease_until_s": int(time.time()) + 600}
    early = proven.ask(FrameKind.RENEW, json.dumps(until).encode())
    assert early.json()["code"] == "not_started"
    first_s = int(time.time()) + 6  # a busy machine needs its time to start and to renew
    proven.start(str(mark_path), lease_until_s=first_s)
    assert proven.ask(FrameKind.RENEW, json.dumps(until).encode()).kind is FrameKind.OK
    with pytest.raises(subprocess.TimeoutExpired):
        proven.process.wait(max(1.5, first_s + 1.5 - time.time()))


def test_stop_before_start_exits_0(proven):
    """An instance without a chute can be stopped too."""
    assert proven.ask(FrameKind.STOP, STOP).kind is FrameKind.OK
    assert proven.wait() == 0


def test_a_call_before_start_is_refused(proven):
    """A CALL without a chute gets ERROR not_started."""
    with proven.blocking(generation=1) as connection:
        begin_call(connection, "/busy")
        assert connection.receive(60).json()["code"] == "not_started"


def run_to_end(environ):
    command = [sys.executable, "-m", "chutes_core.runner"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_wrong_settings_exit_2_with_the_closest_name():
    """An unknown variable of our prefix is named with the closest known one."""
    ended = run_to_end({"CHUTES_RUNNER_LAUNCHID": "x"})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "CHUTES_RUNNER_LAUNCH_ID" in ended.stderr


def test_a_taken_port_exits_4():
    """A port that cannot be bound is exit status 4 and no ready line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run_to_end(
            {
                "CHUTES_RUNNER_LAUNCH_ID": str(uuid.uuid4()),
                "CHUTES_RUNNER_VALIDATOR_PUBLIC_KEY": KeyPair.generate().public.hex(),
                "CHUTES_RUNNER_GPUS": '[{"index": 0, "uuid": "GPU-0"}]',
                "CHUTES_RUNNER_PORT": str(taken.getsockname()[1]),
            }
        )
    assert (ended.returncode, ended.stdout) == (4, "")
    assert "cannot listen" in ended.stderr
