"""What attestation says of a launch. Invariant: only `accepted` lets a launch go on."""

from dataclasses import dataclass

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
