"""Profiles: how much work a challenge asks for.

Invariant: a profile is public and fixed by its name, except for `stages`, which grows with the
measured round trip (`timing.stretch`). Source of the figures: docs/graval.md, section 3.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from graval.canonical import Canonical
from graval.errors import OutOfRange

ROW_BYTES = 1024
MAX_LAYERS = 64
MAX_STAGES = 256  # bounds a leg to 50 KB and the verifier to about 0.5 s of two cores
MAX_TAGS = 64
MAX_ROWS = 1 << 32  # a row's index is 32 bits: 4 TiB


@dataclass(frozen=True)
class Profile(Canonical):
    """What one challenge asks of one GPU.

    Args:
        name: stable name; it is part of the seed.
        layers: T, int8 layers of width 1024 a row costs.
        stages: S, sequential passes over all rows in leg 2.
        fill_bytes: memory to fill, or None where it is a share of the total.
        fill_fraction: (numerator, denominator) of total memory, or None.
        tags_per_stage: tag slots of a stage, real and decoys together.
        min_real: least number of real tags in a stage of leg 2.
        max_real: largest number of real tags in a stage of leg 2.
        leg1_real: real tags in the one stage of leg 1.

    Raises:
        OutOfRange: a figure contradicts another or a limit of the protocol.
    """

    TAG: ClassVar[str] = "profile"

    name: str
    layers: int
    stages: int
    fill_bytes: int | None = None
    fill_fraction: tuple[int, ...] | None = None
    tags_per_stage: int = 24
    min_real: int = 12
    max_real: int = 20
    leg1_real: int = 16

    def __post_init__(self) -> None:
        fraction_ok = self.fill_fraction is None or (
            len(self.fill_fraction) == 2 and 0 < self.fill_fraction[0] <= self.fill_fraction[1]
        )
        checks = {
            "layers": 1 <= self.layers <= MAX_LAYERS,
            "stages": 1 <= self.stages <= MAX_STAGES,
            "tags_per_stage": 1 <= self.tags_per_stage <= MAX_TAGS,
            "min_real": 1 <= self.min_real <= self.max_real <= self.tags_per_stage,
            "leg1_real": 1 <= self.leg1_real <= self.tags_per_stage,
            "fill_fraction": fraction_ok,
            "fill_bytes": (self.fill_bytes is None) != (self.fill_fraction is None),
        }
        for field, ok in checks.items():
            if not ok:
                raise OutOfRange("profile", f"{field} of profile {self.name!r} is out of range")

    def rows(self, memory_bytes: int) -> int:
        """Rows of 1 KiB that this profile fills on a device with so much total memory."""
        if self.fill_bytes is not None:
            return self.fill_bytes // ROW_BYTES
        assert self.fill_fraction is not None
        numerator, denominator = self.fill_fraction
        return memory_bytes * numerator // denominator // ROW_BYTES

    def with_stages(self, stages: int) -> "Profile":
        """The same profile with another number of stages in leg 2."""
        return replace(self, stages=stages)


PROFILES: dict[str, Profile] = {
    p.name: p
    for p in (
        # a CPU stands in for a GPU: tests and devnets only, proves nothing about hardware
        Profile("test", layers=2, stages=2, fill_bytes=1 << 20),
        # beside a loaded model: 1 GiB, no claim of capacity
        Profile("light", layers=8, stages=4, fill_bytes=1 << 30),
        Profile("periodic", layers=8, stages=16, fill_fraction=(97, 100)),
        Profile("admission", layers=16, stages=16, fill_fraction=(97, 100)),
    )
}


def profile(name: str) -> Profile:
    """The profile of this name.

    Raises:
        OutOfRange: no such profile.
    """
    if name not in PROFILES:
        raise OutOfRange("unknown_profile", f"no profile is called {name!r}")
    return PROFILES[name]
