"""`python -m chutes_core.validator.backup save|restore`: the validator's memory, while it runs.

A backup is the SQLite file at one instant, the gateway journal at or after it, blobs, and
the keys. Invariant: between what the store had drained and the first record of the
copied journal nothing is missing: while the journal is copied the store's write lock is held, so
nothing is drained and thrown away meanwhile. Restoring never writes into a folder that has a store.
"""

import argparse
import shutil
import sqlite3
import sys
from pathlib import Path

from chutes_core.base.errors import ChutesError, Conflict, NotFound

_STORE = "validator.sqlite"
_FOLDERS = ("journal", "blobs")
_FILES = ("vault.key", "registry-token.key", "registry-token.crt", "builder.id")
_LOOSE = "job-files"  # never changed, only added and deleted: copied while writers go on
_NOT_COPIED = shutil.ignore_patterns("reserve", "spare", "*.lock")


def save(data_dir: Path, target: Path) -> None:
    """Back a running or stopped validator up into a new folder, readable by its user only.

    Raises:
        NotFound: ``no_store``. Conflict: ``backup_exists``.
    """
    store = data_dir / _STORE
    if not store.exists():
        raise NotFound("no_store", f"{store} does not exist", hint="is this the data_dir?")
    if target.exists():
        raise Conflict("backup_exists", f"{target} exists", hint="name a new folder")
    draft = target.with_name(f"{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    reader = sqlite3.connect(store, isolation_level=None)
    try:
        _copy_frozen(data_dir, draft, reader)
        copy = sqlite3.connect(draft / _STORE)
        try:
            reader.backup(copy)  # of the instant at which the reader's transaction began
        finally:
            copy.close()
    finally:
        reader.close()
    if (data_dir / _LOOSE).exists():
        _copy(data_dir / _LOOSE, draft / _LOOSE)
    _copy_files(data_dir, draft)
    draft.replace(target)


def restore(source: Path, data_dir: Path) -> None:
    """Put a backup into a folder without a store, on this host or another.

    Raises:
        NotFound: ``no_store``. Conflict: ``store_exists``.
    """
    if not (source / _STORE).exists():
        raise NotFound("no_store", f"{source} holds no backup", hint="is it complete?")
    if (data_dir / _STORE).exists():
        raise Conflict(
            "store_exists", f"{data_dir} has a store", hint="stop the validator, move it away"
        )
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in (*_FOLDERS, _LOOSE):
        if (source / name).exists():
            shutil.copytree(source / name, data_dir / name, dirs_exist_ok=True)
    _copy_files(source, data_dir)
    draft = data_dir / f"{_STORE}.part"
    shutil.copy2(source / _STORE, draft)
    draft.replace(data_dir / _STORE)  # last: a store is only there when everything else is


def _copy_files(source: Path, target: Path) -> None:
    for name in _FILES:
        if (source / name).exists():
            shutil.copy2(source / name, target / name)


def _copy_frozen(data_dir: Path, draft: Path, reader: sqlite3.Connection) -> None:
    """Fix the reader's instant and copy the folders while nobody can drain the journal."""
    writer = sqlite3.connect(data_dir / _STORE, isolation_level=None, timeout=30)
    try:
        writer.execute("BEGIN IMMEDIATE")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM cursors").fetchone()
        for name in _FOLDERS:
            if (data_dir / name).exists():
                _copy(data_dir / name, draft / name)
        writer.execute("ROLLBACK")
    finally:
        writer.close()


def _copy(source: Path, target: Path) -> None:
    """Copy a folder; again where a file that was settled before vanished while it was read."""
    for last in (False, False, True):
        try:
            shutil.copytree(source, target, ignore=_NOT_COPIED)
        except (shutil.Error, FileNotFoundError):
            if last:
                raise
            shutil.rmtree(target, ignore_errors=True)
        else:
            return


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 refused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("command", choices=("save", "restore"))
    parser.add_argument("--data-dir", required=True, help="the validator's data_dir")
    parser.add_argument("--folder", required=True, help="of the backup")
    arguments = parser.parse_args(argv)
    data_dir = Path(arguments.data_dir).expanduser()
    folder = Path(arguments.folder).expanduser()
    try:
        if arguments.command == "save":
            save(data_dir, folder)
        else:
            restore(folder, data_dir)
    except ChutesError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
