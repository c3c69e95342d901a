"""What attestation says of a launch. Invariant: only `accepted` lets a launch go on.

A refusal is a failure (wrong, malformed, a false claim) or inconclusive (late, unreachable): see
`domain.launches.FAILED`.
"""

from dataclasses import dataclass, field

from chutes_core.validator.domain.launches import FAILED, ClaimedGpu, Reason

__all__ = ["AttestPlan", "Attestation", "ClaimedGpu", "GpuVerdict", "Prebuilt", "Proof"]


@dataclass(frozen=True)
class GpuVerdict:
    """The verdict on one GPU; times are microseconds at the validator's socket.

    Args:
        gpu_uuid: as claimed.
        gpu_class: as claimed.
        accepted: both answers right and in time.
        reason: why not.
        leg1_us: from sending to the answer; likewise ``leg2_us``.
        deadline1_us: when it was due; likewise ``deadline2_us``.
        basis: of the deadlines: measured, derived, predicted, fixed (the CPU stand-in), or
            uncalibrated: the class has no reference and was judged as a lesser one; fallback: so
            was a prover without Triton.
        judged_as: the class whose figures it was held to; what an accepted GPU counts as.
        proven_bytes: memory that was filled and scanned.
        idle: it was challenged beside a launch and serves no chute.
        pci_bus_id: as the device says.
        host: where it was reached.
    """

    gpu_uuid: str
    gpu_class: str
    accepted: bool
    reason: Reason
    leg1_us: int
    leg2_us: int
    deadline1_us: int
    deadline2_us: int
    basis: str = ""
    judged_as: str = ""
    proven_bytes: int = 0
    idle: bool = False
    pci_bus_id: str = ""
    host: str = ""

    @property
    def failed(self) -> bool:
        """Tell whether the verdict stands against the GPU; a late answer does not."""
        return self.reason in FAILED


@dataclass(frozen=True)
class Proof:
    """One attestation of one launch; ``test`` marks proofs that only a devnet accepts.

    ``scope`` is node (every free GPU of the host), instance (its own GPUs, with the host's idle
    ones) or light (1 GiB beside a loaded model, no claim of capacity); ``left_out`` counts GPUs of
    the node that were not challenged with the others. ``commitment`` is the hash of the needles'
    secret, published before the answers; ``secret`` is revealed once the session has rekeyed away,
    so that anyone can audit the choice.
    """

    proof_id: str
    launch_id: str
    miner_hotkey: str
    profile: str
    scope: str
    test: bool
    at_s: int
    round_trip_us: int
    gpus: tuple[GpuVerdict, ...]
    commitment: str
    secret: str
    left_out: int = 0

    @property
    def accepted(self) -> bool:
        """Tell whether every GPU passed."""
        return bool(self.gpus) and all(gpu.accepted for gpu in self.gpus)


@dataclass(frozen=True)
class Prebuilt:
    """Challenges of one instance, built ahead for the devices and round trip it last had.

    ``body`` belongs to attest/ alone; it holds the answers, so it is never logged or stored.
    """

    devices: tuple[str, ...]
    rtt_us: int
    body: object = field(repr=False)


@dataclass(frozen=True)
class AttestPlan:
    """Everything that one attestation needs; it crosses to a process of its own.

    With ``root`` the instance has been proven before: it is challenged again under these keys and
    keeps them. ``least_us`` asks for so much work at least (a round, in which shared silicon shows
    by being late).
    """

    launch_id: str
    validator_hotkey: str
    miner_hotkey: str
    node_id: str
    host: str
    port: int
    ticket: bytes = field(repr=False)
    validator_private_key: bytes = field(repr=False)
    instance_public_key: bytes
    profile: str
    gpus: tuple[ClaimedGpu, ...]
    devnet: bool
    started_at_s: int
    warm_timeout_s: float = 120.0
    scope: str = "instance"
    left_out: int = 0
    root: bytes | None = field(default=None, repr=False)
    prebuilt: Prebuilt | None = field(default=None, repr=False)
    least_us: int = 0


@dataclass(frozen=True)
class Attestation:
    """The outcome: a proof record, and root 1 where every GPU passed and the instance rekeyed.

    ``devices`` are the provers' own words (hex), for a challenge to be built ahead.
    """

    proof: Proof
    reason: Reason
    detail: str
    root: bytes | None = field(default=None, repr=False)
    devices: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Tell whether every GPU passed and nothing else went wrong."""
        return self.proof.accepted and self.reason is Reason.NONE
