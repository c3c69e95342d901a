"""Many GPUs behind one runner, with real prover processes: all honest, and one that is not.

The validator's clock stands still but for the one that is late: eight provers on a busy machine may
take as long as they like.
"""

import json
import sys
from pathlib import Path

import pytest

from chutes_core.validator.attest.sessions import run_session
from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import AttestPlan, ClaimedGpu

LATE_US = 60_000_000
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # each


def attest(runner, gpus, now_us=lambda: 0):
    """Run a validator's whole session against a runner process."""
    return run_session(
        AttestPlan(
            launch_id=runner.launch_id,
            validator_hotkey="5Validator",
            miner_hotkey="5Miner",
            node_id="node",
            host="127.0.0.1",
            port=runner.port,
            ticket=b"t" * 32,
            validator_private_key=runner.keys.private,
            instance_public_key=runner.public_key,
            profile="test",
            gpus=tuple(ClaimedGpu(f"GPU-{i}", i, "h100_sxm", True) for i in range(gpus)),
            devnet=True,
            started_at_s=1_700_000_000,
        ),
        now_us=now_us,
    )


def test_eight_provers_pass_together_and_leave_nothing(start_runner):
    """Eight processes fill before any scans; all are accepted, and have ended with the proof."""
    runner = start_runner(gpus=8, **ONE_THREAD)
    outcome = attest(runner, 8)
    assert outcome.passed
    assert outcome.root is not None
    assert len(outcome.proof.gpus) == 8
    assert runner.children() == []


@pytest.fixture
def bad_runner(start_runner, tmp_path):
    """Start a runner of four provers, the last of which is bad in a given way."""

    def start(mode, **how):
        mark, python = tmp_path / "late", tmp_path / "python"
        script = Path(__file__).with_name("one_bad_prover.py")
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" {mode} 3 "{mark}" "$@"\n')
        python.chmod(0o755)
        paths = ":".join(path for path in sys.path if path)
        environ = {"CHUTES_RUNNER_GRAVAL_PYTHON": str(python), "PYTHONPATH": paths, **ONE_THREAD}
        return start_runner(**{"gpus": 4, **how}, **environ), mark

    return start


def test_one_that_is_wrong_fails_alone(bad_runner):
    """The other three are right; the instance has no new root."""
    runner, _ = bad_runner("wrong")
    outcome = attest(runner, 4)
    assert outcome.reason is Reason.PROOF_WRONG
    assert outcome.root is None
    assert [gpu.failed for gpu in outcome.proof.gpus] == [False, False, False, True]


def test_one_beside_what_stood_by_is_as_wrong(bad_runner):
    """Three provers waited with the instance and are right; it has no new root for all that."""
    slots = [{"index": i, "uuid": f"GPU-{i}", "declare": "h100_sxm"} for i in range(4)]
    runner, _ = bad_runner("wrong", gpus=3, stand_by=True, CHUTES_RUNNER_GPUS=json.dumps(slots))
    outcome = attest(runner, 4)
    assert outcome.reason is Reason.PROOF_WRONG
    assert outcome.root is None
    assert [gpu.failed for gpu in outcome.proof.gpus] == [False, False, False, True]


def test_one_that_is_late_is_inconclusive(bad_runner):
    """Its answer is right, and came a minute after the others'."""
    runner, mark = bad_runner("late")

    def now_us():
        return LATE_US if mark.exists() else 0

    outcome = attest(runner, 4, now_us)
    assert outcome.reason is Reason.PROOF_LATE
    assert outcome.root is None
    assert not any(gpu.failed for gpu in outcome.proof.gpus)


def test_one_that_dies_is_named(bad_runner):
    """The session ends at once with the prover's end, not at the deadline."""
    runner, _ = bad_runner("missing")
    outcome = attest(runner, 4)
    assert outcome.root is None
    assert not outcome.proof.accepted
    assert "prover_ended" in outcome.detail
    assert "gpu 3" in outcome.detail
