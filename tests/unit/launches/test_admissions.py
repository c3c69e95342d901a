"""Which GPUs may serve: admission, its age, failures, late answers, contests."""

from types import SimpleNamespace

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import GpuVerdict, Proof
from chutes_core.validator.launches.admissions import AdmissionLimits, Admissions
from chutes_core.validator.store.database import Store

DAY_S = 86_400


@pytest.fixture
def parts(tmp_path):
    store, clock, known = Store(tmp_path / "v.sqlite"), ManualClock(), {}
    limits = AdmissionLimits("admission", "periodic", DAY_S, 4 * 3600)
    admissions = Admissions(store=store, clock=clock, limits=limits, known=lambda: known)
    yield SimpleNamespace(store=store, clock=clock, known=known, admissions=admissions)
    store.close()


def judge(parts, *, miner="5A", gpu="GPU-1", reason=Reason.NONE, admission=True, **changes):
    verdict = GpuVerdict(
        gpu, "h100_sxm", reason is Reason.NONE, reason, 1, 2, 3, 4, judged_as="h100_sxm", **changes
    )
    proof = Proof(
        proof_id=f"p-{miner}-{gpu}-{parts.clock.now_us()}-{reason.value}-{len(parts.known)}",
        launch_id="l",
        miner_hotkey=miner,
        profile="admission" if admission else "periodic",
        scope="node" if admission else "instance",
        test=False,
        at_s=parts.clock.now_s(),
        round_trip_us=1,
        gpus=(verdict,),
        commitment="c",
        secret="s",
    )
    parts.store.proofs.insert(proof)
    parts.admissions.judged(SimpleNamespace(miner_hotkey=miner, admission=admission), proof)


def refused(call, *arguments):
    with pytest.raises(Conflict) as caught:
        call(*arguments)
    return caught.value.code


def test_a_gpu_serves_only_after_its_node_attestation_and_not_for_ever(parts):
    """not_admitted before, and again after the age limit."""
    assert refused(parts.admissions.require, "5A", ["GPU-1"]) == "not_admitted"
    judge(parts)
    assert parts.admissions.require("5A", ["GPU-1"]) == "h100_sxm"
    assert parts.admissions.listed("5A").admitted == ("GPU-1",)
    parts.clock.advance(DAY_S + 1)
    assert refused(parts.admissions.require, "5A", ["GPU-1"]) == "not_admitted"


def test_an_idle_gpu_is_asked_for_again_with_less_work_while_its_admission_is_young(parts):
    """After the interval it leaves the list, and the next attestation is a periodic one."""
    judge(parts)
    parts.clock.advance(5 * 3600)
    assert parts.admissions.listed("5A").admitted == ()
    assert parts.admissions.profile_for("5A", ["GPU-1"]) == "periodic"
    assert parts.admissions.profile_for("5A", ["GPU-1", "GPU-2"]) == "admission"
    assert parts.admissions.require("5A", ["GPU-1"]) == "h100_sxm"


def test_a_wrong_answer_takes_the_admission_and_blocks_for_an_hour(parts):
    """A failure stands against the GPU; afterwards it must be admitted anew."""
    judge(parts)
    judge(parts, reason=Reason.PROOF_WRONG, admission=False)
    assert refused(parts.admissions.require, "5A", ["GPU-1"]) == "not_admitted"
    assert refused(parts.admissions.check_tries, "5A", ["GPU-1"]) == "proof_failed_lately"
    parts.clock.advance(3601)
    parts.admissions.check_tries("5A", ["GPU-1"])


def test_a_late_answer_is_inconclusive_with_two_fresh_tries_an_hour(parts):
    """The admission stays; the third late answer within the hour is one too many."""
    judge(parts)
    for _ in range(2):
        judge(parts, reason=Reason.PROOF_LATE, admission=False)
        parts.clock.advance(1)
        parts.admissions.check_tries("5A", ["GPU-1"])
    judge(parts, reason=Reason.PROOF_LATE, admission=False)
    assert refused(parts.admissions.check_tries, "5A", ["GPU-1"]) == "proof_tries_used"
    assert parts.admissions.require("5A", ["GPU-1"]) == "h100_sxm"


@pytest.mark.parametrize(
    ("second", "changes"),
    [("GPU-1", {}), ("GPU-2", {"pci_bus_id": "00000000:65:00.0", "host": "1.2.3.4"})],
    ids=["uuid", "pci id at an address"],
)
def test_a_gpu_under_two_hotkeys_serves_neither_until_one_passes_alone(parts, second, changes):
    """Both are blocked; while the other still offers it nobody can clear it."""
    judge(parts, **changes)
    judge(parts, miner="5B", gpu=second, **changes)
    assert refused(parts.admissions.require, "5A", ["GPU-1"]) == "gpu_contested"
    assert refused(parts.admissions.require, "5B", [second]) == "gpu_contested"
    parts.known["5B"] = SimpleNamespace(gpus=(SimpleNamespace(uuid=second),))
    assert refused(parts.admissions.profile_for, "5A", ["GPU-1"]) == "gpu_contested"
    del parts.known["5B"]
    assert parts.admissions.profile_for("5A", ["GPU-1"]) == "admission"
    parts.clock.advance(1)
    judge(parts, **changes)
    assert parts.admissions.require("5A", ["GPU-1"]) == "h100_sxm"
    assert refused(parts.admissions.require, "5B", [second]) == "gpu_contested"
