"""When an instance was active: what scoring counts. Invariant: clipped to the asked window."""

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
