"""Named positions in foreign streams. Invariant: set in the transaction of what was read.

A position in a chain of blocks also holds the block's hash: the next block must name it as parent.
"""

from chutes_core.validator.store.connection import Connection, Value


class CursorRows:
    """Name -> integer, and the hash of what stands there."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def get(self, name: str) -> int | None:
        """Return the stored position, or None before the first."""
        row = self._db.one("SELECT value FROM cursors WHERE name=?", (name,))
        return None if row is None else int(row["value"])

    def hash_of(self, name: str) -> str | None:
        """Return the hash that was stored with the position, or None where there is none."""
        row = self._db.one("SELECT hash FROM cursors WHERE name=?", (name,))
        return None if row is None or not row["hash"] else str(row["hash"])

    def set(self, name: str, value: int, *, block_hash: str = "") -> None:
        """Store the position."""
        row: dict[str, Value] = {"name": name, "value": value, "hash": block_hash}
        self._db.insert("cursors", row, known="replace")
