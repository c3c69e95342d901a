"""The cache on disk: one folder for each (validator, chute), made and removed by renames.

Path: model_cache -> here, in threads. Layout of the directory: `<name>/about.json` (whose it is;
its time of modification is the last use) and `<name>/files`, which alone is mounted; `.new-…` is
being made, `.gone-…` is being removed. Invariants: a folder under a name of its own is whole; one
that is not wanted any more loses its name first, so that a crash at any moment leaves nothing that
could be lent, and what it leaves is removed at the next start; the directory is this process's
alone (a lock), and nobody else on the host may enter it (mode 0700).
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from chutes_core.base.errors import Conflict, Unavailable
from chutes_core.miner.cache import trees

FILES = "files"
_ABOUT = "about.json"
_LOCK = "lock"
_NAME = re.compile(r"[0-9a-f]{24}")
_OURS = re.compile(r"(\.new-|\.gone-)?[0-9a-f]{24}")


class Key(NamedTuple):
    """Whose a folder is: the validator whose launches use it, and the chute."""

    validator_hotkey: str
    chute_id: str


@dataclass(frozen=True)
class Folder:
    """One folder as it lies on the disk."""

    name: str
    key: Key
    used_at_s: int


class Folders:
    """The directory of the cache, locked.

    Args:
        directory: made where it is missing.
        user_id: who writes into the folders; None for this process's own user.
    """

    def __init__(self, directory: Path, *, user_id: int | None = None) -> None:
        self.directory = directory
        self._user_id = user_id
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        self._lock = os.open(directory / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise Conflict(
                "cache_dir_in_use",
                f"another miner keeps its models in {directory}",
                hint="give each miner its own CHUTES_MINER_CACHE_DIR",
            ) from error

    def close(self) -> None:
        """Give the directory free."""
        os.close(self._lock)

    def files(self, folder: Folder) -> Path:
        """Return what of a folder is mounted."""
        return self.directory / folder.name / FILES

    def reconcile(self) -> tuple[Folder, ...]:
        """Return the folders that are whole; remove the rest of what this class has made.

        What it cannot have made is left alone, and told.
        """
        found: dict[Key, Folder] = {}
        for name in sorted(os.listdir(self.directory)):
            if name == _LOCK:
                continue
            if not _OURS.fullmatch(name):
                logger.bind(code="cache_foreign", name=name).warning(
                    "something lies in the model cache that is not the miner's"
                )
                continue
            folder = self._read(name)
            if folder is None or folder.key in found:
                self._discard(name)
            else:
                found[folder.key] = folder
        return tuple(found.values())

    def make(self, key: Key, now_s: int) -> Folder:
        """Return a new, empty folder.

        Raises:
            Unavailable: ``cache_failed``.
        """
        folder = Folder(secrets.token_hex(12), key, now_s)
        new = self.directory / f".new-{folder.name}"
        try:
            (new / FILES).mkdir(parents=True, mode=0o700)
            if self._user_id is not None:
                os.chown(new / FILES, self._user_id, self._user_id)
            (new / _ABOUT).write_text(json.dumps(key._asdict()))
            os.utime(new / _ABOUT, (now_s, now_s))
            new.rename(self.directory / folder.name)
        except OSError as error:
            raise Unavailable(
                "cache_failed",
                f"no folder for models can be made under {self.directory}: {error.strerror}",
                hint="see the disk, or set CHUTES_MINER_CACHE_GB=0",
            ) from error
        return folder

    def touch(self, folder: Folder, now_s: int) -> Folder:
        """Note a use."""
        with contextlib.suppress(OSError):
            os.utime(self.directory / folder.name / _ABOUT, (now_s, now_s))
        return Folder(folder.name, folder.key, now_s)

    def put_away(self, folder: Folder) -> None:
        """Take a folder's name, quickly; `sweep` removes it.

        Raises:
            OSError: the disk refuses.
        """
        (self.directory / folder.name).rename(self.directory / f".gone-{folder.name}")

    def sweep(self) -> None:
        """Remove what was put away; may take long."""
        for name in os.listdir(self.directory):
            if name.startswith(".gone-"):
                self._discard(name)

    def _read(self, name: str) -> Folder | None:
        if not _NAME.fullmatch(name):
            return None
        about = self.directory / name / _ABOUT
        try:
            said = json.loads(about.read_text())
            key = Key(str(said["validator_hotkey"]), str(said["chute_id"]))
            used_at_s = int(about.stat().st_mtime)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Folder(name, key, used_at_s) if self._is_whole(name) else None

    def _is_whole(self, name: str) -> bool:
        files = self.directory / name / FILES
        if files.is_symlink() or not files.is_dir():
            return False
        return self._user_id in (None, files.stat().st_uid)

    def _discard(self, name: str) -> None:
        path = self.directory / name
        try:
            if path.is_dir() and not path.is_symlink():
                trees.remove(path)
            else:
                path.unlink()
        except OSError as error:  # the next sweep or start tries again
            logger.bind(code="cache_not_removed", path=str(path)).warning(
                "something in the model cache could not be removed: {}", error
            )
