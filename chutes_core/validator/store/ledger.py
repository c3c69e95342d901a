"""The double-entry ledger: entries and postings, append-only, and the balances that follow them.

Invariant: an entry's key is applied once, whatever happens; its postings sum to zero; a balance is
the sum of its postings, kept by a trigger in the same transaction. UPDATE and DELETE are refused.
"""

import sqlite3
from dataclasses import dataclass

from chutes_core.validator.domain.money import Entry, Posting
from chutes_core.validator.store.connection import Connection, Value


@dataclass(frozen=True)
class Line:
    """One posting as it stands on an account's statement; ``entry_id`` grows with time."""

    entry_id: int
    key: str
    kind: str
    at_s: int
    rao: int


class LedgerRows:
    """Entries by key, balances by account."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def apply(self, entry: Entry) -> bool:
        """Write an entry; False, and nothing changes, where its key was applied before."""
        with self._db.transaction():
            head: dict[str, Value] = {"key": entry.key, "kind": entry.kind, "at_s": entry.at_s}
            if not self._db.insert("entries", head, known="keep"):
                return False
            entry_id = self._db.number("SELECT entry_id FROM entries WHERE key=?", (entry.key,))
            for position, posting in enumerate(entry.postings):
                self._db.insert(
                    "postings",
                    {
                        "entry_id": entry_id,
                        "position": position,
                        "account": posting.account,
                        "rao": posting.rao,
                    },
                )
        return True

    def get(self, key: str) -> Entry | None:
        """Return the entry with this key, or None."""
        head = self._db.one("SELECT * FROM entries WHERE key=?", (key,))
        if head is None:
            return None
        rows = self._db.all(
            "SELECT * FROM postings WHERE entry_id=? ORDER BY position", (head["entry_id"],)
        )
        postings = tuple(Posting(row["account"], row["rao"]) for row in rows)
        return Entry(head["key"], head["kind"], head["at_s"], postings)

    def last_entry_id(self) -> int:
        """Return the id of the newest entry; 0 before the first."""
        return self._db.number("SELECT max(entry_id) FROM entries")

    def balance(self, account: str) -> int:
        """Return the balance of one ledger account; 0 where nothing was posted."""
        return self._db.number("SELECT rao FROM balances WHERE account=?", (account,))

    def balances(self, prefix: str) -> dict[str, int]:
        """Return account -> balance of every account whose name begins with ``prefix``."""
        rows = self._db.all(
            "SELECT * FROM balances WHERE substr(account, 1, length(?)) = ? ORDER BY account",
            (prefix, prefix),
        )
        return {row["account"]: row["rao"] for row in rows}

    def lines(self, account: str, *, offset: int, limit: int) -> tuple[Line, ...]:
        """Return an account's lines, newest first."""
        rows = self._db.all(
            "SELECT e.entry_id, e.key, e.kind, e.at_s, p.rao FROM postings p"
            " JOIN entries e ON e.entry_id=p.entry_id WHERE p.account=?"
            " ORDER BY p.entry_id DESC, p.position LIMIT ? OFFSET ?",
            (account, limit, offset),
        )
        return tuple(map(_line, rows))

    def count_lines(self, account: str) -> int:
        """Return how many lines an account has."""
        return self._db.number("SELECT count(*) FROM postings WHERE account=?", (account,))

    def total(self) -> int:
        """Return the sum of all postings: 0, always."""
        return self._db.number("SELECT sum(rao) FROM postings")

    def disagreements(self) -> tuple[str, ...]:
        """Return accounts whose balance is not the sum of their postings: none, always."""
        rows = self._db.all(
            "SELECT account FROM balances b WHERE rao <>"
            " (SELECT coalesce(sum(rao), 0) FROM postings p WHERE p.account=b.account)"
        )
        return tuple(row["account"] for row in rows)


def _line(row: sqlite3.Row) -> Line:
    return Line(row["entry_id"], row["key"], row["kind"], row["at_s"], row["rao"])
