"""Mortal eras: from which block an extrinsic is valid, and until when.

Read on the way from bytes to a checked extrinsic. Invariant: the block hash that a signature
binds is the hash at `Era.birth(current)`, so outside its era a signature no longer verifies.

Formulas: Substrate's `sp_runtime::generic::Era`.
"""

from dataclasses import dataclass

from chutes_core.base.errors import Invalid
from chutes_core.devnet.scale import Reader

_QUANTIZE_SHIFT = 12


@dataclass(frozen=True)
class Era:
    """A window of blocks; ``period`` 0 means immortal.

    Args:
        period: length in blocks, a power of two from 4 to 65536.
        phase: first block of the window, modulo ``period``.
    """

    period: int = 0
    phase: int = 0

    @property
    def is_immortal(self) -> bool:
        """True when the extrinsic never expires."""
        return self.period == 0

    def birth(self, current: int) -> int:
        """Return the first block of the window that contains ``current``."""
        if self.is_immortal:
            return 0
        return (max(current, self.phase) - self.phase) // self.period * self.period + self.phase

    def death(self, current: int) -> int | None:
        """Return the first block at which the extrinsic is invalid again, or None."""
        return None if self.is_immortal else self.birth(current) + self.period


def read_era(reader: Reader) -> Era:
    """Read the one or two bytes of an era.

    Raises:
        Invalid: ``era_malformed``.
    """
    first = reader.u8()
    if first == 0:
        return Era()
    encoded = first | reader.u8() << 8
    period = 2 << (encoded & 15)
    phase = (encoded >> 4) * max(period >> _QUANTIZE_SHIFT, 1)
    if period < 4 or phase >= period:
        raise Invalid("era_malformed", f"no era has period {period} and phase {phase}")
    return Era(period, phase)
