"""From answers and times to a Proof: the only caller of graval's judgement.

Invariant: a launch goes on only where `graval.verifier.check` accepted every GPU; nothing here
can turn a refusal into an acceptance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from chutes_core.base.ids import new_id
from chutes_core.validator.attest.challenges import Prepared
from chutes_core.validator.attest.work import proven_class
from chutes_core.validator.domain.launches import ClaimedGpu, Reason
from chutes_core.validator.domain.verdicts import Attestation, AttestPlan, GpuVerdict, Proof
from graval.challenge import Verdict
from graval.messages import Warm
from graval.profile import ROW_BYTES
from graval.verifier import check

_REASONS = {
    "accepted": Reason.NONE,
    "wrong": Reason.PROOF_WRONG,
    "late": Reason.PROOF_LATE,
    "malformed": Reason.PROOF_MALFORMED,
}
_GRAVAL_SCOPES = {"node": "node", "instance": "instance", "light": "instance"}


@dataclass
class LegResult:
    """Answers and times (microseconds since the leg was sent) by GPU index."""

    answers: dict[int, bytes] = field(default_factory=dict)
    times_us: dict[int, int] = field(default_factory=dict)


def judge(
    plan: AttestPlan,
    prepared: Prepared,
    warms: Sequence[Warm],
    legs: Sequence[tuple[LegResult, LegResult]],
    *,
    rtt_us: int,
) -> Proof:
    """Judge every GPU and put the verdicts together.

    Args:
        plan: what was to be attested.
        prepared: challenges and deadlines, by pass and GPU index.
        warms: what the devices said of themselves.
        legs: both legs of each pass that was run; a missing answer never came.
        rtt_us: the round trip that was measured.
    """
    gpus = tuple(_gpu(plan, prepared, index, warm, legs) for index, warm in enumerate(warms))
    return _proof(
        plan,
        gpus,
        rtt_us=rtt_us,
        commitment=prepared.commitment.hex(),
        secret=prepared.secret.hex(),
    )


def _gpu(
    plan: AttestPlan,
    prepared: Prepared,
    index: int,
    warm: Warm,
    legs: Sequence[tuple[LegResult, LegResult]],
) -> GpuVerdict:
    """Return the worst verdict of a GPU's passes; of accepted ones, the slowest."""
    work, claim = prepared.works[index], plan.gpus[index]
    verdicts = [
        check(
            challenges[index],
            first.answers.get(index),
            second.answers.get(index),
            first.times_us.get(index, 0),
            second.times_us.get(index, 0),
            work.due,
            scope=_GRAVAL_SCOPES[plan.scope],
        )
        for challenges, (first, second) in zip(prepared.passes, legs, strict=False)
    ]
    worst = max(verdicts, key=_badness)
    judged_as = work.known.gpu
    if worst.accepted:
        judged_as = proven_class(work, claim.gpu_class, worst.leg1_us, worst.leg2_us)
    return GpuVerdict(
        gpu_uuid=claim.uuid,
        gpu_class=claim.gpu_class,
        accepted=worst.accepted,
        reason=_REASONS[worst.outcome],
        leg1_us=worst.leg1_us,
        leg2_us=worst.leg2_us,
        deadline1_us=worst.deadline1_us,
        deadline2_us=worst.deadline2_us,
        basis=work.known.basis,
        judged_as=judged_as,
        proven_bytes=work.rows * ROW_BYTES if worst.accepted else 0,
        idle=claim.idle,
        pci_bus_id=warm.device.pci_bus_id,
        host=plan.host,
    )


def _badness(verdict: Verdict) -> tuple[int, int]:
    order = ("accepted", "late", "wrong", "malformed")
    return order.index(verdict.outcome), verdict.leg1_us + verdict.leg2_us


def attestation(proof: Proof, *, root: bytes | None = None) -> Attestation:
    """Return the outcome of a judged proof; ``root`` is there only where the rekeying succeeded."""
    failed = next((gpu for gpu in proof.gpus if not gpu.accepted), None)
    if failed is None:
        return Attestation(proof, Reason.NONE, "", root)
    return Attestation(proof, failed.reason, f"GPU {failed.gpu_uuid}: {_figures(failed)}")


def refused(plan: AttestPlan, reason: Reason, detail: str) -> Attestation:
    """Return the outcome of a session that ended before it could be judged."""
    gpus = tuple(_unjudged(claim, reason, plan.host) for claim in plan.gpus)
    return Attestation(_proof(plan, gpus, rtt_us=0, commitment="", secret=""), reason, detail)


def _unjudged(claim: ClaimedGpu, reason: Reason, host: str) -> GpuVerdict:
    return GpuVerdict(
        gpu_uuid=claim.uuid,
        gpu_class=claim.gpu_class,
        accepted=False,
        reason=reason,
        leg1_us=0,
        leg2_us=0,
        deadline1_us=0,
        deadline2_us=0,
        idle=claim.idle,
        host=host,
    )


def _proof(
    plan: AttestPlan, gpus: tuple[GpuVerdict, ...], *, rtt_us: int, commitment: str, secret: str
) -> Proof:
    return Proof(
        proof_id=new_id(),
        launch_id=plan.launch_id,
        miner_hotkey=plan.miner_hotkey,
        profile=plan.profile,
        scope=plan.scope,
        test=plan.profile == "test" or any(gpu.stand_in for gpu in plan.gpus),
        at_s=plan.started_at_s,
        round_trip_us=rtt_us,
        gpus=gpus,
        commitment=commitment,
        secret=secret,
        left_out=plan.left_out,
    )


def _figures(gpu: GpuVerdict) -> str:
    return (
        f"leg 1 {gpu.leg1_us} of {gpu.deadline1_us} us, leg 2 {gpu.leg2_us} of "
        f"{gpu.deadline2_us} us"
    )
