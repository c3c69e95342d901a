"""What attestation says of a launch. Invariant: only `accepted` lets a launch go on."""

from dataclasses import dataclass, field

from chutes_core.validator.domain.launches import Reason


@dataclass(frozen=True)
class GpuVerdict:
    """The verdict on one GPU; times are microseconds at the validator's socket."""

    gpu_uuid: str
    gpu_class: str
    accepted: bool
    reason: Reason
    leg1_us: int
    leg2_us: int
    deadline1_us: int
    deadline2_us: int


@dataclass(frozen=True)
class Proof:
    """One attestation of one launch; ``test`` marks proofs that only a devnet accepts.

    ``commitment`` is the hash of the needles' secret, published before the answers; ``secret`` is
    revealed once the session has rekeyed away, so that anyone can audit the choice.
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

    @property
    def accepted(self) -> bool:
        """Tell whether every GPU passed."""
        return bool(self.gpus) and all(gpu.accepted for gpu in self.gpus)


@dataclass(frozen=True)
class ClaimedGpu:
    """A GPU as the miner claims it for this launch."""

    uuid: str
    index: int
    gpu_class: str
    stand_in: bool


@dataclass(frozen=True)
class AttestPlan:
    """Everything that one attestation needs; it crosses to a process of its own."""

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


@dataclass(frozen=True)
class Attestation:
    """The outcome: a proof record, and root 1 where every GPU passed and the instance rekeyed."""

    proof: Proof
    reason: Reason
    detail: str
    root: bytes | None = field(default=None, repr=False)
