"""What is asked of an instance: claims against devices, then one challenge per GPU.

Path: attest/sessions has the provers' WARM messages and the round trip -> here -> legs to send.
Invariant: a test profile or a stand-in device is only ever challenged on a devnet.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import AttestPlan, ClaimedGpu
from graval.challenge import DeviceInfo, SeedContext
from graval.errors import GravalError
from graval.gpus import check_claims
from graval.messages import Warm
from graval.params import Deadlines, Profile, deadlines, profile, reference, stretch
from graval.verifier import Challenge, build_challenge

NONCE_BYTES = 32
SECRET_BYTES = 32


class Objection(Exception):  # a verdict that ends a session early, not a fault
    """Why an instance is not even challenged, or cannot be."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Prepared:
    """Everything built before the first leg is sent."""

    challenges: tuple[Challenge, ...]
    deadlines: tuple[Deadlines, ...]


def read_warms(devices: Sequence[str]) -> tuple[Warm, ...]:
    """Read the provers' canonical WARM messages (hex).

    Raises:
        Objection: proof_malformed.
    """
    try:
        return tuple(Warm.from_bytes(bytes.fromhex(text)) for text in devices)
    except (GravalError, ValueError) as error:
        raise Objection(
            Reason.PROOF_MALFORMED, f"a prover's WARM: {error}"
        ) from error


def check_devices(plan: AttestPlan, warms: Sequence[Warm]) -> None:
    """Compare what the devices say with what the inventory claims.

    Raises:
        Objection: test_proof_refused or claims_disagree.
    """
    if len(warms) != len(plan.gpus):
        raise Objection(
            Reason.CLAIMS_DISAGREE, f"{len(plan.gpus)} GPUs claimed, {len(warms)} are there"
        )
    for claim, warm in zip(plan.gpus, warms, strict=True):
        testing = warm.device.stand_in or plan.profile == "test"
        if testing and not plan.devnet:
            raise Objection(Reason.TEST_PROOF_REFUSED, f"GPU {claim.uuid} is a stand-in")
        if fields := _disagreements(claim, warm.device):
            raise Objection(
                Reason.CLAIMS_DISAGREE,
                f"GPU {claim.uuid} claims {claim.gpu_class}, but differs in {', '.join(fields)}",
            )


def prepare(plan: AttestPlan, warms: Sequence[Warm], rtt_us: int, *, secret: bytes) -> Prepared:
    """Build all challenges and deadlines, with stages stretched to the round trip.

    Raises:
        Objection: a class without a reference, a GPU too small, or a round trip too long.
    """
    asked = profile(plan.profile)
    challenges, due = [], []
    try:
        for index, (claim, warm) in enumerate(zip(plan.gpus, warms, strict=True)):
            known = reference(claim.gpu_class, asked.name)
            stretched = stretch(asked, known, rtt_us)
            context = _context(plan, warm, index, stretched)
            challenges.append(build_challenge(context, stretched, secret=secret))
            due.append(deadlines(stretched, known, rtt_us))
    except GravalError as error:
        raise Objection(Reason.CLAIMS_DISAGREE, str(error)) from error
    return Prepared(tuple(challenges), tuple(due))


def _disagreements(claim: ClaimedGpu, device: DeviceInfo) -> list[str]:
    fields = check_claims(claim.gpu_class, device)
    if device.stand_in != claim.stand_in:
        fields.append("stand_in")
    if not claim.stand_in and device.uuid != claim.uuid:
        fields.append("uuid")
    return fields


def _context(plan: AttestPlan, warm: Warm, index: int, asked: Profile) -> SeedContext:
    return SeedContext(
        nonce=secrets.token_bytes(NONCE_BYTES),
        validator_hotkey=plan.validator_hotkey,
        miner_hotkey=plan.miner_hotkey,
        instance_id=plan.launch_id,
        node_id=plan.node_id,
        instance_public_key=plan.instance_public_key,
        gpu_index=index,
        gpu_count=len(plan.gpus),
        device=warm.device,
        profile_name=asked.name,
        rows=asked.rows(warm.device.memory_bytes),
        time_s=plan.started_at_s,
    )
