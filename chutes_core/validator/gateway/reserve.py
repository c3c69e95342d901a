"""Disk space kept back for the records of calls that are already running.

Path: the journal gives it up when a write fails, which makes room for the calls in flight; until
it can be taken again no new call is dispatched. Invariant: while `held` is true, RESERVE_BYTES
(some seven thousand records) can still be written after the disk has filled.
"""

import os
from collections.abc import Callable
from pathlib import Path

from chutes_core.base.clock import Clock, SystemClock

RESERVE_BYTES = 4 * 1024 * 1024
RETRY_US = 1_000_000


class Reserve:
    """A preallocated file. ``allocate(fd, size)`` and the clock are a test's to replace.

    Attributes:
        there: whether the space is there.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: int = RESERVE_BYTES,
        clock: Clock | None = None,
        allocate: Callable[[int, int], None] | None = None,
    ) -> None:
        self._path = path
        self._size = size
        self._clock = clock or SystemClock()
        self._allocate = allocate or _allocate
        self.there = False
        self._tried_at_us: int | None = None

    def held(self) -> bool:
        """Tell whether the space is there, trying to take it at most once a second."""
        if self.there:
            return True
        now_us = self._clock.monotonic_us()
        if self._tried_at_us is None or now_us - self._tried_at_us >= RETRY_US:
            self._tried_at_us = now_us
            self.there = self._take()
        return self.there

    def release(self) -> None:
        """Give the space back to the file system."""
        self.there = False
        self._tried_at_us = self._clock.monotonic_us()
        self._path.unlink(missing_ok=True)

    def _take(self) -> bool:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            self._allocate(fd, self._size)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True


def _allocate(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        os.pwrite(fd, bytes(size), 0)  # macOS
