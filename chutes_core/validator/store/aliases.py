"""Rows of aliases. Invariant: an account has a name once, and a slug names one alias."""

import json
import sqlite3

from chutes_core.validator.domain.aliases import Alias
from chutes_core.validator.store.connection import Connection, Value

_SELECT = "SELECT a.*, u.username FROM aliases a JOIN accounts u USING (user_id)"


class AliasRows:
    """Aliases by owner, name and slug."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def save(self, alias: Alias) -> None:
        """Keep an alias, in place of the one that its owner had under this name.

        Raises:
            Conflict: ``constraint`` where another alias has the slug.
        """
        changed: dict[str, Value] = {
            "chute_ids": json.dumps(alias.chute_ids),
            "updated_at_s": alias.updated_at_s,
        }
        key: dict[str, Value] = {"user_id": alias.user_id, "name": alias.name}
        kept: dict[str, Value] = {"slug": alias.slug, "created_at_s": alias.created_at_s}
        with self._db.transaction():
            where = "user_id=? AND name=?"
            if not self._db.update("aliases", changed, where, (alias.user_id, alias.name)):
                self._db.insert("aliases", key | kept | changed)

    def get(self, user_id: str, name: str) -> Alias | None:
        """Return an account's alias, or None."""
        row = self._db.one(f"{_SELECT} WHERE a.user_id=? AND a.name=?", (user_id, name))
        return None if row is None else _alias(row)

    def by_slug(self, slug: str) -> Alias | None:
        """Return the alias that is served under this slug, or None."""
        row = self._db.one(f"{_SELECT} WHERE a.slug=?", (slug,))
        return None if row is None else _alias(row)

    def by_owner(self, user_id: str) -> tuple[Alias, ...]:
        """Return an account's aliases in order of name."""
        rows = self._db.all(f"{_SELECT} WHERE a.user_id=? ORDER BY a.name", (user_id,))
        return tuple(map(_alias, rows))

    def all(self) -> tuple[Alias, ...]:
        """Return every alias."""
        return tuple(map(_alias, self._db.all(f"{_SELECT} ORDER BY a.user_id, a.name")))

    def delete(self, user_id: str, name: str) -> bool:
        """Forget an alias; False where there was none."""
        sql = "DELETE FROM aliases WHERE user_id=? AND name=?"
        return self._db.change(sql, (user_id, name)) > 0


def _alias(row: sqlite3.Row) -> Alias:
    return Alias(
        user_id=row["user_id"],
        username=row["username"],
        name=row["name"],
        slug=row["slug"],
        chute_ids=tuple(json.loads(row["chute_ids"])),
        created_at_s=row["created_at_s"],
        updated_at_s=row["updated_at_s"],
    )
