"""Rows of links, used signatures and notices. Invariant: a used signature is never forgotten."""

import sqlite3

from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.rights import Link, Notice
from chutes_core.validator.store.connection import Connection, Value


class LinkRows:
    """Chain hotkeys that give roles to accounts."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def insert(self, link: Link) -> None:
        """Keep a new link.

        Raises:
            Conflict: ``hotkey_linked``: the hotkey belongs to an account already.
        """
        row: dict[str, Value] = {
            "hotkey_ss58": link.hotkey_ss58,
            "user_id": link.user_id,
            "kind": link.kind,
            "linked_at_s": link.linked_at_s,
            "valid": int(link.valid),
        }
        if not self._db.insert("links", row, known="keep"):
            raise Conflict(
                "hotkey_linked",
                "this hotkey is linked to an account already",
                hint="unlink it there first: chutes unlink",
            )

    def get(self, hotkey_ss58: str) -> Link | None:
        """Return the link of a hotkey, or None."""
        row = self._db.one("SELECT * FROM links WHERE hotkey_ss58=?", (hotkey_ss58,))
        return None if row is None else _link(row)

    def of_user(self, user_id: str) -> tuple[Link, ...]:
        """Return an account's links, oldest first."""
        rows = self._db.all(
            "SELECT * FROM links WHERE user_id=? ORDER BY linked_at_s, hotkey_ss58", (user_id,)
        )
        return tuple(map(_link, rows))

    def all(self) -> tuple[Link, ...]:
        """Return every link."""
        return tuple(map(_link, self._db.all("SELECT * FROM links ORDER BY hotkey_ss58")))

    def set_valid(self, hotkey_ss58: str, *, valid: bool) -> None:
        """Store whether a link gives its roles now."""
        self._db.update("links", {"valid": int(valid)}, "hotkey_ss58=?", (hotkey_ss58,))

    def delete(self, hotkey_ss58: str) -> None:
        """Forget a link."""
        self._db.change("DELETE FROM links WHERE hotkey_ss58=?", (hotkey_ss58,))


class SignatureRows:
    """Signatures over texts without a nonce, each accepted once for all times."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def use(self, sha256: str, at_s: int) -> bool:
        """Record a signature; False where it was used before."""
        return self._db.insert("used_signatures", {"sha256": sha256, "at_s": at_s}, known="keep")


class NoticeRows:
    """When the chutes of an account drain because it is no developer any more."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def give(self, notice: Notice) -> None:
        """Keep a notice; an earlier one stands."""
        row: dict[str, Value] = {
            "user_id": notice.user_id,
            "at_s": notice.at_s,
            "drains_at_s": notice.drains_at_s,
            "reason": notice.reason,
        }
        self._db.insert("notices", row, known="keep")

    def withdraw(self, user_id: str) -> None:
        """Forget the notice: the account is a developer again."""
        self._db.change("DELETE FROM notices WHERE user_id=?", (user_id,))

    def get(self, user_id: str) -> Notice | None:
        """Return the notice of an account, or None."""
        row = self._db.one("SELECT * FROM notices WHERE user_id=?", (user_id,))
        if row is None:
            return None
        return Notice(row["user_id"], row["at_s"], row["drains_at_s"], row["reason"])

    def due(self, user_id: str, now_s: int) -> bool:
        """Tell whether an account's chutes must not run any more."""
        notice = self.get(user_id)
        return notice is not None and now_s >= notice.drains_at_s


def _link(row: sqlite3.Row) -> Link:
    return Link(
        row["hotkey_ss58"], row["user_id"], row["kind"], row["linked_at_s"], bool(row["valid"])
    )
