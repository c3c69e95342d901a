"""Named positions in foreign streams. Invariant: set in the transaction of what was read."""

from chutes_core.validator.store.connection import Connection


class CursorRows:
    """Name -> integer."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def get(self, name: str) -> int | None:
        """Return the stored position, or None before the first."""
        row = self._db.one("SELECT value FROM cursors WHERE name=?", (name,))
        return None if row is None else int(row["value"])

    def set(self, name: str, value: int) -> None:
        """Store the position."""
        self._db.insert("cursors", {"name": name, "value": value}, known="replace")
