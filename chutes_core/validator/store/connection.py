"""One SQLite connection shared by the threads of the validator, and its transactions.

Invariant: between BEGIN and COMMIT the connection belongs to one thread; what a block inside
`transaction()` wrote is there wholly or not at all, also when a caller catches its exception.
Every error of SQLite leaves here as a typed one.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from chutes_core.base.errors import Conflict, Invalid, Unavailable

Value = str | int | bytes | None
Row = Mapping[str, Value]
Known = Literal["refuse", "keep", "replace"]


class Connection:
    """A connection in WAL mode behind a re-entrant lock.

    A commit survives a killed process; one made with ``durable=True`` also survives a power cut.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._durable = False
        self.raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.raw.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            self.raw.execute(f"PRAGMA {pragma}")
        self.raw.execute("PRAGMA busy_timeout=5000")

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Run the block in a transaction; inside another one it joins it as a savepoint.

        Args:
            durable: sync to the disk before returning; asked for by the outermost block.
        """
        with self._lock:
            if self._depth:
                if durable and not self._durable:
                    raise RuntimeError("a durable transaction cannot join one that is not")
                name = f"nested_{self._depth}"
                begin, commit = f"SAVEPOINT {name}", f"RELEASE {name}"
                undo: tuple[str, ...] = (f"ROLLBACK TO {name}", f"RELEASE {name}")
            else:
                if durable:
                    self.execute("PRAGMA synchronous=FULL")
                self._durable = durable
                begin, commit, undo = "BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",)
            try:
                self.execute(begin)
                self._depth += 1
                try:
                    yield
                except BaseException:
                    self._undo(undo)
                    raise
                else:
                    self._commit(commit, undo)
                finally:
                    self._depth -= 1
            finally:
                if self._depth == 0 and durable:
                    self.execute("PRAGMA synchronous=NORMAL")
                    self._durable = False

    def execute(self, sql: str, values: Sequence[Value] = ()) -> sqlite3.Cursor:
        """Run one statement.

        Raises:
            Conflict: ``constraint`` where a unique or foreign key forbids it.
            Invalid: ``out_of_range`` (an integer beyond 64 bits), ``bad_text`` (half a character).
            Unavailable: ``store_unavailable`` for a full disk, a locked or damaged file.
        """
        with self._lock:
            try:
                return self.raw.execute(sql, values)
            except sqlite3.IntegrityError as error:
                raise Conflict("constraint", f"the store refused a record: {error}") from error
            except OverflowError as error:
                raise Invalid("out_of_range", "an integer does not fit 64 bits") from error
            except UnicodeEncodeError as error:
                raise Invalid("bad_text", "a text holds half of a character") from error
            except sqlite3.Error as error:
                raise Unavailable(
                    "store_unavailable",
                    f"the store cannot be used: {error}",
                    hint="look at the validator's disk",
                ) from error

    def one(self, sql: str, values: Sequence[Value] = ()) -> sqlite3.Row | None:
        """Return the first row, or None."""
        with self._lock:
            row: sqlite3.Row | None = self.execute(sql, values).fetchone()
            return row

    def all(self, sql: str, values: Sequence[Value] = ()) -> list[sqlite3.Row]:
        """Return every row."""
        with self._lock:
            return self.execute(sql, values).fetchall()

    def number(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Return the first column of the first row as an integer; 0 where there is none."""
        row = self.one(sql, values)
        return 0 if row is None or row[0] is None else int(row[0])

    def insert(self, table: str, row: Row, *, known: Known = "refuse") -> bool:
        """Insert one row; True where it was written.

        Args:
            table: a table's name, from the code alone.
            row: columns and values.
            known: what to do where a unique column has the value already: raise Conflict,
                keep the old row, or replace it.
        """
        verb = "INSERT OR REPLACE" if known == "replace" else "INSERT"
        tail = " ON CONFLICT DO NOTHING" if known == "keep" else ""
        marks = ",".join("?" * len(row))
        # Names of tables and columns come from this package, values are bound.
        sql = f"{verb} INTO {table} ({','.join(row)}) VALUES ({marks}){tail}"
        return self.change(sql, tuple(row.values())) > 0

    def update(self, table: str, changes: Row, where: str, values: Sequence[Value]) -> int:
        """Change the rows that ``where`` finds and return how many there were."""
        columns = ",".join(f"{name}=?" for name in changes)
        # Names and the condition come from this package, values are bound.
        sql = f"UPDATE {table} SET {columns} WHERE {where}"  # noqa: S608
        return self.change(sql, (*changes.values(), *values))

    def change(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Run a statement that writes and return how many rows it touched."""
        with self._lock:
            return self.execute(sql, values).rowcount

    def close(self) -> None:
        """Close the file; what was committed stays."""
        with self._lock:
            self.raw.close()

    def _commit(self, commit: str, undo: tuple[str, ...]) -> None:
        try:
            self.execute(commit)
        except BaseException:
            self._undo(undo)
            raise

    def _undo(self, undo: tuple[str, ...]) -> None:
        if self.raw.in_transaction:  # a full disk makes SQLite roll back by itself
            for statement in undo:
                self.execute(statement)
