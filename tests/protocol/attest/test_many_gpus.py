"""One session with 64 GPUs: the barrier holds, and each GPU gets the verdict that it earned.

The provers are fakes that know the answers; the session, its challenges and its socket are real.
"""

import pytest

from chutes_core.validator.attest import sessions
from chutes_core.validator.attest.sessions import system_monotonic_us
from chutes_core.validator.domain.launches import Reason
from graval.challenge import MAX_GPUS
from tests.protocol.attest.conftest import learn
from tests.protocol.attest.instances import Knowing, attest

LATE_US = 60_000_000
LAST = MAX_GPUS - 1


@pytest.fixture(scope="module")
def built():
    """The challenges of all 64, built once: they cost a CPU some seconds."""
    return {}


@pytest.fixture(autouse=True)
def _build_once(monkeypatch, built):
    honest = sessions.prepare

    def prepare(plan, warms, rtt_us):
        if not built:
            # the instance's key is in the seed and in nothing that is checked here
            built["all"] = honest(plan, warms, rtt_us)
        learn(built["all"])
        return built["all"]

    monkeypatch.setattr(sessions, "prepare", prepare)
    yield
    Knowing.digests.clear()


def many(bend=lambda index, leg, digest: digest):
    """64 fake provers; `bend` changes an answer, or holds it back with None."""

    class Many(Knowing):
        def answer(self, index, leg, body):
            return bend(index, leg, super().answer(index, leg, body))

        def frames_for(self, index, leg, digest):
            return [] if digest is None else super().frames_for(index, leg, digest)

    return Many


def test_all_64_fill_before_any_scans_and_all_pass():
    """64 first legs, then 64 second ones, and a new root."""
    outcome, instance = attest(many(), gpus=MAX_GPUS)
    assert outcome.passed
    assert outcome.root is not None
    assert sorted(instance.order) == instance.order
    assert [index for _, index in instance.order] == [*range(MAX_GPUS)] * 2


def test_one_that_is_missing_keeps_leg_2_from_all():
    """The barrier stays shut until D1; nobody passes, and only the missing one is to blame."""
    late = {"us": 0}

    def bend(index, leg, digest):
        if index != LAST:
            return digest
        late["us"] = LATE_US
        return None

    def now_us():
        return system_monotonic_us() + late["us"]

    outcome, instance = attest(many(bend), gpus=MAX_GPUS, now_us=now_us)
    assert outcome.reason is Reason.PROOF_LATE
    assert {leg for leg, _ in instance.order} == {1}
    assert not any(gpu.accepted or gpu.failed for gpu in outcome.proof.gpus)


def test_one_that_is_late_is_the_only_one_that_is_refused():
    """63 are accepted in the proof, the late one is inconclusive, and there is no root."""
    late = {"us": 0}

    def bend(index, leg, digest):
        if (index, leg) == (LAST, 2):
            late["us"] = LATE_US
        return digest

    def now_us():
        return system_monotonic_us() + late["us"]

    outcome, _ = attest(many(bend), gpus=MAX_GPUS, now_us=now_us)
    assert outcome.root is None
    assert outcome.proof.gpus[LAST].reason is Reason.PROOF_LATE
    assert not outcome.proof.gpus[LAST].failed


def test_one_that_is_wrong_is_the_only_one_that_fails():
    """The others' verdicts are their own."""

    def bend(index, leg, digest):
        return bytes(32) if (index, leg) == (7, 1) else digest

    outcome, _ = attest(many(bend), gpus=MAX_GPUS)
    assert outcome.reason is Reason.PROOF_WRONG
    assert outcome.root is None
    assert [gpu.accepted for gpu in outcome.proof.gpus] == [at != 7 for at in range(MAX_GPUS)]
    assert outcome.proof.gpus[7].failed
