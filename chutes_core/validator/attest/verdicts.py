"""From answers and times to a Proof: the only caller of graval's judgement.

Invariant: a launch goes on only where `graval.verifier.check` accepted every GPU; nothing here
can turn a refusal into an acceptance.
"""

from collections.abc import Mapping

from chutes_core.base.ids import new_id
from chutes_core.validator.attest.challenges import Prepared
from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import Attestation, AttestPlan, GpuVerdict, Proof
from graval.verifier import check

_REASONS = {
    "accepted": Reason.NONE,
    "wrong": Reason.PROOF_WRONG,
    "late": Reason.PROOF_LATE,
    "malformed": Reason.PROOF_MALFORMED,
}
Answers = Mapping[int, bytes]
Times = Mapping[int, int]


def judge(
    plan: AttestPlan,
    prepared: Prepared,
    answers: tuple[Answers, Answers],
    times_us: tuple[Times, Times],
    *,
    rtt_us: int,
    secret: bytes,
) -> Proof:
    """Judge every GPU and put the verdicts together.

    Args:
        plan: what was to be attested.
        prepared: challenges and deadlines, by GPU index.
        answers: for each leg, the 32-byte answers by GPU index; a missing one never came.
        times_us: for each leg, microseconds from sending to the answer, by GPU index.
        rtt_us: the round trip that the deadlines allow for.
        secret: what chose the needles.
    """
    gpus = []
    for index, claim in enumerate(plan.gpus):
        verdict = check(
            prepared.challenges[index],
            answers[0].get(index),
            answers[1].get(index),
            times_us[0].get(index, 0),
            times_us[1].get(index, 0),
            prepared.deadlines[index],
            scope="instance",
        )
        gpus.append(
            GpuVerdict(
                gpu_uuid=claim.uuid,
                gpu_class=claim.gpu_class,
                accepted=verdict.accepted,
                reason=_REASONS[verdict.outcome],
                leg1_us=verdict.leg1_us,
                leg2_us=verdict.leg2_us,
                deadline1_us=verdict.deadline1_us,
                deadline2_us=verdict.deadline2_us,
            )
        )
    return _proof(
        plan,
        tuple(gpus),
        rtt_us=rtt_us,
        commitment=prepared.challenges[0].commitment.hex(),
        secret=secret.hex(),
    )


def attestation(proof: Proof, *, root: bytes | None = None) -> Attestation:
    """Return the outcome of a judged proof; ``root`` is there only where the rekeying succeeded."""
    failed = next((gpu for gpu in proof.gpus if not gpu.accepted), None)
    if failed is None:
        return Attestation(proof, Reason.NONE, "", root)
    return Attestation(proof, failed.reason, f"GPU {failed.gpu_uuid}: {_figures(failed)}")


def refused(plan: AttestPlan, reason: Reason, detail: str) -> Attestation:
    """Return the outcome of a session that ended before it could be judged."""
    gpus = tuple(
        GpuVerdict(
            gpu_uuid=claim.uuid,
            gpu_class=claim.gpu_class,
            accepted=False,
            reason=reason,
            leg1_us=0,
            leg2_us=0,
            deadline1_us=0,
            deadline2_us=0,
        )
        for claim in plan.gpus
    )
    return Attestation(_proof(plan, gpus, rtt_us=0, commitment="", secret=""), reason, detail)


def _proof(
    plan: AttestPlan, gpus: tuple[GpuVerdict, ...], *, rtt_us: int, commitment: str, secret: str
) -> Proof:
    return Proof(
        proof_id=new_id(),
        launch_id=plan.launch_id,
        miner_hotkey=plan.miner_hotkey,
        profile=plan.profile,
        scope="instance",
        test=plan.profile == "test" or any(gpu.stand_in for gpu in plan.gpus),
        at_s=plan.started_at_s,
        round_trip_us=rtt_us,
        gpus=gpus,
        commitment=commitment,
        secret=secret,
    )


def _figures(gpu: GpuVerdict) -> str:
    return (
        f"leg 1 {gpu.leg1_us} of {gpu.deadline1_us} us, leg 2 {gpu.leg2_us} of "
        f"{gpu.deadline2_us} us"
    )
