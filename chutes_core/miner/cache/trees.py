"""Sizes and removal of folders that strangers' code has written, or writes at this moment.

Path: upkeep -> here, in threads. Invariants: nothing outside of the folder is ever opened, whatever
links lie in it (every step is relative to a directory that was opened without following links); a
tree of any depth and breadth costs bounded memory, descriptors and, when it is measured, time.
"""

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

MAX_FILES = 50_000
"""Entries of a chute's folder: more are over the bound, and counted no further."""
MAX_DEPTH = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512  # of st_blocks, whatever the file system's own is


@dataclass
class Size:
    """What a tree takes of the disk; ``excess`` says that it was counted no further, and why."""

    used_bytes: int = 0
    entries: int = 0
    excess: str = ""


def measure(folder: Path) -> Size:
    """Return what a folder takes; what vanishes meanwhile is not counted."""
    size = Size()
    try:
        opened = os.open(folder, _DIRECTORY)
    except OSError:
        return size
    try:
        _add(opened, size, set(), 1)
    finally:
        os.close(opened)
    return size


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it.

    Folders inside are hoisted to the top one after another, so that a tree deeper than a path can
    be long, or than descriptors last, goes like any other.

    Raises:
        OSError: something cannot be removed.
    """
    try:
        top = os.open(folder, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        while names := os.listdir(top):
            for name in names:
                _remove(top, name)
    finally:
        os.close(top)
    folder.rmdir()


def _add(directory: int, size: Size, linked: set[int], depth: int) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            if size.excess:
                return
            try:
                facts = entry.stat(follow_symlinks=False)
                if facts.st_nlink > 1 and not stat.S_ISDIR(facts.st_mode):
                    if facts.st_ino in linked:
                        _count(size, 0)  # a name more: it takes time to look at, and no room
                        continue
                    linked.add(facts.st_ino)
                _count(size, facts.st_blocks * _BLOCK)
                if stat.S_ISDIR(facts.st_mode):
                    _add_below(directory, entry.name, size, linked, depth + 1)
            except OSError:  # it has gone, or is another thing now
                continue


def _add_below(directory: int, name: str, size: Size, linked: set[int], depth: int) -> None:
    if depth > MAX_DEPTH:
        size.excess = f"folders in it are nested deeper than {MAX_DEPTH}"
        return
    opened = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        _add(opened, size, linked, depth)
    finally:
        os.close(opened)


def _count(size: Size, used_bytes: int) -> None:
    size.used_bytes += used_bytes
    size.entries += 1
    if size.entries > MAX_FILES:
        size.excess = f"it holds more than {MAX_FILES} files and folders"


def _remove(top: int, name: str) -> None:
    """Remove one entry of the top folder; what a folder holds comes up or goes."""
    if not stat.S_ISDIR(os.lstat(name, dir_fd=top).st_mode):
        os.unlink(name, dir_fd=top)
        return
    directory = _opened(top, name)
    try:
        for inner in os.listdir(directory):
            if stat.S_ISDIR(os.lstat(inner, dir_fd=directory).st_mode):
                _openable(directory, inner)  # a folder that may not be written cannot be moved
                up = f".up-{secrets.token_hex(16)}"  # a name that nobody can have taken
                os.rename(inner, up, src_dir_fd=directory, dst_dir_fd=top)
            else:
                os.unlink(inner, dir_fd=directory)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=top)


def _opened(top: int, name: str) -> int:
    _openable(top, name)
    return os.open(name, _DIRECTORY, dir_fd=top)


def _openable(parent: int, name: str) -> None:
    """Give the owner every right on a folder; without effect for root, who has them."""
    if os.geteuid() != 0:
        os.chmod(name, 0o700, dir_fd=parent)
