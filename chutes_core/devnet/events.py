"""The events of the block that is being built.

Filled by pallets, written into System.Events when the block is sealed, where clients read them at
that block's hash. Invariant: the order is the order of execution, and a rolled-back call leaves
none (`mark` and `rewind`).
"""

from typing import Any


class EventLog:
    """Collects event records; the phase is set by the executor."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []
        self._phase: Any = "Initialization"

    def set_extrinsic(self, index: int) -> None:
        """Attribute what follows to the extrinsic at ``index``."""
        self._phase = {"ApplyExtrinsic": index}

    def set_finalization(self) -> None:
        """Attribute what follows to the end of the block."""
        self._phase = "Finalization"

    def deposit(self, pallet: str, name: str, fields: Any = None) -> None:
        """Add one event.

        Args:
            pallet: e.g. ``Balances``.
            name: e.g. ``Transfer``.
            fields: a dict (named fields), a tuple (unnamed), one value, or None.
        """
        event = {pallet: name if fields is None else {name: fields}}
        self._records.append({"phase": self._phase, "event": event, "topics": []})

    def mark(self) -> int:
        """Return a position to come back to with `rewind`."""
        return len(self._records)

    def rewind(self, mark: int) -> None:
        """Forget the events since ``mark``."""
        del self._records[mark:]

    def records(self) -> list[dict[str, Any]]:
        """Return the records in order."""
        return list(self._records)
