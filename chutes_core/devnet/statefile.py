"""The file that keeps a chain over a restart: blocks and every change of the state, in SQLite.

Path: `chain` seals a block -> `append` -> only then is anybody told of it. One transaction a
block, synced to the disk, so a process that is killed at any moment comes back with all that it
ever announced. The pool is not kept, as on a real node. Invariant: the file belongs to one genesis
and one process at a time.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chutes_core.base.errors import Conflict, Invalid, Unavailable
from chutes_core.devnet.blocks import Block
from chutes_core.devnet.scale import Reader
from chutes_core.devnet.version import RuntimeVersion, VersionHistory

FORMAT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (
    number INTEGER PRIMARY KEY, parent BLOB NOT NULL, state_root BLOB NOT NULL,
    extrinsics_root BLOB NOT NULL, extrinsics BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS changes (
    key BLOB NOT NULL, number INTEGER NOT NULL, value BLOB, PRIMARY KEY (key, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS versions (
    from_block INTEGER PRIMARY KEY, spec INTEGER NOT NULL, tx INTEGER NOT NULL
);
"""


@dataclass(frozen=True)
class Saved:
    """What a file held when it was opened.

    Args:
        blocks: from genesis on.
        changes: the state's changes by height; older ones are merged away.
        finalized_number: height of the finalized head.
    """

    blocks: list[Block]
    changes: dict[int, dict[bytes, bytes | None]]
    finalized_number: int


class StateFile:
    """An open state file.

    Args:
        path: made if missing.
        kept_blocks: heights whose state must stay readable.

    Raises:
        Invalid: ``state_unreadable``: it is something else, or damaged.
        Conflict: ``state_in_use`` by another process.
    """

    def __init__(self, path: Path, *, kept_blocks: int) -> None:
        self._path = path
        self._kept = kept_blocks
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0.5)
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
            with self._transaction():
                self._put_meta("opened", "1")  # takes the lock at once
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise Conflict("state_in_use", f"another devnet has {path} open") from error
            raise Invalid("state_unreadable", f"{path} cannot be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            raise Invalid("state_unreadable", f"{path} is no state file: {error}") from error
        known = self._meta("format")
        if known not in {None, str(FORMAT)}:
            raise Invalid("state_unreadable", f"{path} has format {known}, not {FORMAT}")

    def load(self, genesis_hash: bytes) -> Saved | None:
        """Return what the file holds, None when it is new.

        Raises:
            Invalid: ``state_differs``: it is the file of another genesis.
        """
        if self._meta("genesis") is None:
            return None
        if self._meta("genesis") != genesis_hash.hex():
            raise Invalid(
                "state_differs",
                f"{self._path} belongs to a chain with other parameters",
                hint="use the options of its first start (block time, tempo, validators), "
                "or another file",
            )
        rows = self._db.execute(
            "SELECT number, parent, state_root, extrinsics_root, extrinsics FROM blocks "
            "ORDER BY number"
        )
        blocks = [
            Block(number, parent, state_root, extrinsics_root, tuple(_split(body)))
            for number, parent, state_root, extrinsics_root, body in rows
        ]
        changes: dict[int, dict[bytes, bytes | None]] = {}
        self._merge(blocks[-1].number)
        for key, number, value in self._db.execute("SELECT key, number, value FROM changes"):
            changes.setdefault(number, {})[key] = value
        return Saved(blocks, changes, int(self._meta("finalized") or 0))

    def versions(self) -> list[tuple[int, RuntimeVersion]]:
        """Return the changes of the runtime version, oldest first."""
        rows = self._db.execute("SELECT from_block, spec, tx FROM versions ORDER BY from_block")
        return [(start, RuntimeVersion(spec, tx)) for start, spec, tx in rows]

    def append(
        self,
        block: Block,
        changes: Mapping[bytes, bytes | None],
        *,
        finalized_number: int,
        versions: VersionHistory,
    ) -> None:
        """Write a block, durable when this returns.

        Raises:
            Unavailable: ``state_not_written``, e.g. a full disk.
        """
        with self._transaction():
            if block.number == 0:
                self._put_meta("format", str(FORMAT))
                self._put_meta("genesis", block.hash.hex())
            body = b"".join(block.extrinsics)
            header = (block.number, block.parent_hash, block.state_root, block.extrinsics_root)
            self._db.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", (*header, body))
            self._db.executemany(
                "INSERT INTO changes VALUES (?, ?, ?)",
                ((key, block.number, value) for key, value in changes.items()),
            )
            self._put_meta("finalized", str(finalized_number))
            self._db.executemany(
                "INSERT OR REPLACE INTO versions VALUES (?, ?, ?)", versions.rows()
            )

    def rewind(self, number: int) -> None:
        """Forget every block above ``number``."""
        with self._transaction():
            self._db.execute("DELETE FROM blocks WHERE number > ?", (number,))
            self._db.execute("DELETE FROM changes WHERE number > ?", (number,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _merge(self, best: int) -> None:
        """Drop values that no readable height can reach."""
        floor = best - self._kept + 1
        with self._transaction():
            self._db.execute(
                "DELETE FROM changes AS old WHERE number < ?1 AND EXISTS (SELECT 1 FROM changes "
                "AS new WHERE new.key = old.key AND new.number > old.number "
                "AND new.number <= ?1)",
                (floor,),
            )

    def _meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _put_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise Unavailable("state_not_written", f"{self._path}: {error}") from error
        except BaseException:
            self._db.execute("ROLLBACK")
            raise


def _split(body: bytes) -> Iterator[bytes]:
    reader = Reader(body)
    while reader.remaining:
        start = reader.offset
        reader.octets()
        yield body[start : reader.offset]
