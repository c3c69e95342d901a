"""The journal's next segment, made ahead: room on the disk that is really written.

Path: the syncing thread makes it (`prepare`), the journal goes on in it (`take`). A record that is
written inside of a file's size needs no block of the file system and no commit of its own journal,
so that neither the loop nor fdatasync waits for one; blocks that were only allocated would be
converted at their first write-back, so zeros are written. Invariants: a spare that is taken holds
zeros alone, on the disk; what an earlier process left under its name is never used, for it may
hold records.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from chutes_core.base.clock import Clock, SystemClock

RETRY_US = 1_000_000
_PIECE_BYTES = 256 * 1024


class Spare:
    """One file of ``size`` bytes. ``fill(fd, size)`` and the clock are a test's to replace.

    Attributes:
        size: the room of a spare.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        *,
        clock: Clock | None = None,
        fill: Callable[[int, int], None] | None = None,
    ) -> None:
        self.size = size
        self._path = path
        self._clock = clock or SystemClock()
        self._fill = fill or _fill
        self._fd = -1
        self._failed_at_us: int | None = None
        path.unlink(missing_ok=True)

    @property
    def there(self) -> bool:
        """Tell whether a spare can be taken."""
        return self._fd >= 0

    def prepare(self) -> None:
        """Make a spare if there is none; a disk that refused is asked again after a second."""
        if self._fd >= 0:
            return
        now_us = self._clock.monotonic_us()
        if self._failed_at_us is not None and now_us - self._failed_at_us < RETRY_US:
            return
        fd = self._make()
        self._failed_at_us = now_us if fd < 0 else None
        self._fd = fd

    def take(self, path: Path) -> int:
        """Give the spare this name and return its descriptor; -1 if there is none."""
        fd = self._fd
        if fd < 0:
            return -1
        try:
            self._path.rename(path)
        except OSError:
            return -1
        self._fd = -1
        return fd

    def close(self) -> None:
        """Give the room back; after the syncing thread has ended."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._path.unlink(missing_ok=True)

    def _make(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = -1
        try:
            fd = os.open(self._path, flags, 0o600)
            self._fill(fd, self.size)
        except OSError:
            with contextlib.suppress(OSError):  # what could not be removed is told by O_EXCL
                self._path.unlink(missing_ok=True)
            if fd >= 0:
                os.close(fd)
            return -1
        return fd


def _fill(fd: int, size: int) -> None:
    """Write zeros, durably; the blocks are asked for at once, so that they lie together."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    piece = bytes(min(size, _PIECE_BYTES))
    at = 0
    while at < size:
        at += os.pwrite(fd, piece[: size - at], at)
    os.fsync(fd)
