"""Stops sending calls to an instance that fails, and tries one call after a while.

Invariant: while open no call passes; while half-open exactly one does.
"""

from typing import Final

FAILURES_TO_OPEN: Final = 3
FIRST_PAUSE_US: Final = 2_000_000
MAX_PAUSE_US: Final = 60_000_000


class Breaker:
    """State of one instance; every method takes the monotonic time in microseconds.

    Attributes:
        tripped: whether it opened and has not closed since; while not, every call passes, and
            `begin` and `end` change nothing.
        troubled: whether a failure came since it last closed; while not, `succeeded` changes
            nothing.
    """

    __slots__ = ("_failures", "_open_until_us", "_pause_us", "_trying", "tripped", "troubled")

    def __init__(self) -> None:
        self.tripped = self.troubled = False
        self._failures = 0
        self._pause_us = FIRST_PAUSE_US
        self._open_until_us: int | None = None
        self._trying = False

    def allows(self, now_us: int) -> bool:
        """Tell whether a call may go out."""
        if self._open_until_us is None:
            return True
        return now_us >= self._open_until_us and not self._trying

    def begin(self) -> None:
        """Note that a call goes out; while the breaker is open it is the one trial."""
        self._trying = self._open_until_us is not None

    def end(self) -> None:
        """Note that the call is over, whatever came of it."""
        self._trying = False

    def succeeded(self) -> None:
        """Close."""
        self._failures = 0
        self._pause_us = FIRST_PAUSE_US
        self._open_until_us = None
        self.tripped = self.troubled = False
        self._trying = False

    def failed(self, now_us: int) -> None:
        """Count a failure: open after FAILURES_TO_OPEN in a row, for longer each time."""
        self._failures += 1
        self.troubled = True
        if self._failures < FAILURES_TO_OPEN:
            return
        reopened = self._open_until_us is not None
        self._pause_us = min(self._pause_us * 2, MAX_PAUSE_US) if reopened else FIRST_PAUSE_US
        self._open_until_us = now_us + self._pause_us
        self.tripped = True
