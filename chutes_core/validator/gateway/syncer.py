"""The thread that makes journal records durable, in groups.

Path: Journal.append wakes it, it calls fdatasync once for all that was written meanwhile, and then
does what else need not be done on the loop (``then``: the next segment).
Invariant: it never runs on the gateway's loop, a retired descriptor is synced before it is closed,
and after a failed sync nothing counts as durable any more (the kernel may have dropped the pages).
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

GROUP_S = 0.02


class Syncer:
    """Owns the descriptors given to it and closes them; ``directory`` holds their files."""

    def __init__(self, fd: int, directory: Path, *, then: Callable[[], None]) -> None:
        self._directory = directory
        self._then = then
        self.failed = False
        self._fds = [fd]
        self._named = -1
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that something was written; once the thread knows of work, this costs nothing."""
        if not self._dirty.is_set():
            self._dirty.set()

    def follow(self, fd: int) -> None:
        """Go on with a new segment's descriptor; the old one is synced, then closed."""
        self._fds.append(fd)  # atomic, and never waits for a sync that is under way
        self._dirty.set()

    def sync_now(self) -> bool:
        """Sync in the calling thread; False once any sync has failed."""
        with self._lock:
            while not self.failed:
                retired = len(self._fds) > 1  # before the sync, for the loop may rotate behind it
                try:
                    _make_durable(self._fds[0])
                    self._sync_directory()
                except OSError:
                    self.failed = True
                    break
                if not retired:
                    break
                os.close(self._fds.pop(0))
        return not self.failed

    def close(self) -> None:
        """Stop the thread, sync a last time, close the descriptors."""
        self._stopping.set()
        self._dirty.set()
        self._thread.join()
        self.sync_now()
        for fd in self._fds:
            os.close(fd)

    def _sync_directory(self) -> None:
        """Make a new segment's name durable; once for each descriptor."""
        if self._named == self._fds[-1]:
            return
        self._named = self._fds[-1]
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._dirty.wait()
            self._dirty.clear()
            self.sync_now()
            self._then()
            self._stopping.wait(GROUP_S)


def _make_durable(fd: int) -> None:
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)  # macOS
