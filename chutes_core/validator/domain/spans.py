"""When an instance was active, and what was paid for on it: what scoring counts of a window."""

from dataclasses import dataclass

from chutes_core.validator.domain.launches import Launch


@dataclass(frozen=True)
class ActiveSpan:
    """The part of one launch's active time inside a window, in Unix microseconds [from, to)."""

    launch: Launch
    from_us: int
    to_us: int

    @property
    def duration_us(self) -> int:
        """Return the length."""
        return self.to_us - self.from_us


@dataclass(frozen=True)
class PaidSum:
    """What one user's charged calls on one launch come to: microseconds, and rao as charged."""

    launch_id: str
    user_id: str
    usage_us: int
    charge_rao: int
