"""What is asked of an instance: claims against devices, then the challenges of each GPU.

Path: attest/sessions has the provers' WARM messages and the round trip -> here -> legs to send.
Invariant: a test profile or a stand-in device is only ever challenged on a devnet, and challenges
built ahead are used once, for the very devices that they were built for.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from chutes_core.validator.attest.work import Work, work_for
from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import AttestPlan, ClaimedGpu, Prebuilt
from graval.challenge import DeviceInfo, SeedContext
from graval.errors import GravalError, RoundTripTooLong, UnknownDevice
from graval.gpus import check_claims
from graval.messages import Warm
from graval.params import profile
from graval.verifier import Challenge, build_challenge

NONCE_BYTES = 32
SECRET_BYTES = 32
PREBUILT_RTT_PERCENT = 125
PREBUILT_RTT_US = 1_000
"""A prebuilt challenge allows for a round trip a little longer than the last one."""


class Objection(Exception):  # a verdict that ends a session early, not a fault
    """Why an instance is not even challenged, or cannot be."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Prepared:
    """Everything built before the first leg is sent: for each pass, a challenge per GPU.

    Every GPU gets as many passes as the one that needs most.
    """

    works: tuple[Work, ...]
    passes: tuple[tuple[Challenge, ...], ...]
    secret: bytes
    rtt_us: int

    def __repr__(self) -> str:
        return f"Prepared({len(self.works)} GPUs, {len(self.passes)} passes)"

    @property
    def commitment(self) -> bytes:
        """The hash of the secret that chose the needles."""
        return self.passes[0][0].commitment


def read_warms(devices: Sequence[str]) -> tuple[Warm, ...]:
    """Read the provers' canonical WARM messages (hex).

    Raises:
        Objection: proof_malformed.
    """
    try:
        return tuple(Warm.from_bytes(bytes.fromhex(text)) for text in devices)
    except (GravalError, ValueError) as error:
        raise Objection(Reason.PROOF_MALFORMED, f"a prover's WARM: {error}") from error


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


def prepare(plan: AttestPlan, warms: Sequence[Warm], rtt_us: int) -> Prepared:
    """Build all challenges and deadlines, with stages stretched to the round trip.

    Raises:
        Objection: a class that no reference fits, a GPU too small, or a round trip too long.
    """
    asked = profile(plan.profile)
    secret = secrets.token_bytes(SECRET_BYTES)
    try:
        works = tuple(
            work_for(
                asked,
                claim.gpu_class,
                warm.device.memory_bytes,
                rtt_us=rtt_us,
                least_us=plan.least_us,
                backend=warm.device.backend,
            )
            for claim, warm in zip(plan.gpus, warms, strict=True)
        )
        passes = tuple(
            tuple(
                build_challenge(_context(plan, warm, index, work), work.profile, secret=secret)
                for index, (warm, work) in enumerate(zip(warms, works, strict=True))
            )
            for _ in range(max(work.passes for work in works))
        )
    except RoundTripTooLong as error:
        raise Objection(Reason.ROUND_TRIP_TOO_LONG, str(error)) from error
    except UnknownDevice as error:
        raise Objection(Reason.CLAIMS_DISAGREE, str(error)) from error
    except GravalError as error:
        raise Objection(Reason.PROTOCOL, str(error)) from error
    return Prepared(works, passes, secret, rtt_us)


def prebuild(plan: AttestPlan, devices: tuple[str, ...], rtt_us: int) -> Prebuilt | None:
    """Build an instance's next challenge ahead; None where its devices allow none."""
    allowed_us = rtt_us * PREBUILT_RTT_PERCENT // 100 + PREBUILT_RTT_US
    try:
        warms = read_warms(devices)
        check_devices(plan, warms)
        return Prebuilt(devices, allowed_us, prepare(plan, warms, allowed_us))
    except Objection:
        return None  # the challenge itself will say why


def usable(prebuilt: Prebuilt | None, devices: tuple[str, ...], rtt_us: int) -> Prepared | None:
    """Return what was built ahead where it fits these devices and this round trip."""
    if prebuilt is None or prebuilt.devices != devices or prebuilt.rtt_us < rtt_us:
        return None
    return prebuilt.body if isinstance(prebuilt.body, Prepared) else None


def _disagreements(claim: ClaimedGpu, device: DeviceInfo) -> list[str]:
    fields = check_claims(claim.gpu_class, device)
    if device.stand_in != claim.stand_in:
        fields.append("stand_in")
    if not claim.stand_in and device.uuid != claim.uuid:
        fields.append("uuid")
    return fields


def _context(plan: AttestPlan, warm: Warm, index: int, work: Work) -> SeedContext:
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
        profile_name=work.profile.name,
        rows=work.rows,
        time_s=plan.started_at_s,
    )
