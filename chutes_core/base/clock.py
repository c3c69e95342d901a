"""Time as an argument. Invariant: domain code never reads a clock of its own."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for durations; both in integer units."""

    def now_s(self) -> int:
        """Return Unix time in whole seconds."""
        ...

    def now_us(self) -> int:
        """Return Unix time in microseconds."""
        ...

    def monotonic_us(self) -> int:
        """Return a monotonic time in microseconds, for durations."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_s(self) -> int:
        """Return Unix time in whole seconds."""
        return int(time.time())

    def now_us(self) -> int:
        """Return Unix time in microseconds."""
        return time.time_ns() // 1_000

    def monotonic_us(self) -> int:
        """Return a monotonic time in microseconds."""
        return time.monotonic_ns() // 1_000


class ManualClock:
    """A clock that only a test moves."""

    def __init__(self, start_s: int = 1_700_000_000) -> None:
        self._now_us = start_s * 1_000_000

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``."""
        self._now_us += round(seconds * 1_000_000)

    def now_s(self) -> int:
        """Return the set time in whole seconds."""
        return self._now_us // 1_000_000

    def now_us(self) -> int:
        """Return the set time in microseconds."""
        return self._now_us

    def monotonic_us(self) -> int:
        """Return the set time in microseconds."""
        return self._now_us
