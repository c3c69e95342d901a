"""What containers hold on the disk without a name: files that are open, or mapped, and unlinked.

Path: model_cache, where the disk gets short -> here, in a thread. No walk over a folder shows such
files, so a chute could fill the disk past every bound with them. Invariant: only processes that see
the folder at its place inside a container are looked at; what this user may not see is left out.
"""

import os
import stat
from pathlib import Path

_BLOCK = 512
_PLACES = ("fd", "map_files")


def hidden_bytes(files: Path, inside: str, proc: Path = Path("/proc")) -> int:
    """Return the bytes of nameless files of the processes that have ``files`` mounted ``inside``.

    Args:
        files: the folder on the host.
        inside: its place in their containers.
        proc: where the kernel shows processes.
    """
    try:
        folder = files.stat()
    except OSError:
        return 0
    found: dict[int, int] = {}
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        seen = _stat(f"{process}/root{inside}")
        if seen is not None and (seen.st_dev, seen.st_ino) == (folder.st_dev, folder.st_ino):
            for place in _PLACES:
                found |= _nameless(process / place, folder.st_dev)
    return sum(found.values())


def _nameless(place: Path, device: int) -> dict[int, int]:
    """Return inode -> bytes of the files without a name that a process holds."""
    found: dict[int, int] = {}
    try:
        names = os.listdir(place)
    except OSError:
        return found
    for name in names:
        seen = _stat(f"{place}/{name}")
        if seen is None or seen.st_nlink or not stat.S_ISREG(seen.st_mode):
            continue
        if seen.st_dev == device:
            found[seen.st_ino] = seen.st_blocks * _BLOCK
    return found


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
