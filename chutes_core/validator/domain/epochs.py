"""What the validator did in one epoch. Invariant: an intent is written before the extrinsic."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """Weights meant for an epoch, and what became of them.

    ``extrinsic_hash`` is empty until the extrinsic succeeded at finality; ``error`` says why not.
    """

    epoch: int
    intended_at_s: int
    weights: tuple[tuple[int, int], ...]
    extrinsic_hash: str = ""
    block_number: int | None = None
    block_hash: str = ""
    error: str = ""
