"""Rows of secrets. Invariant: a value lies here sealed, and leaves only through `sealed_of`."""

import sqlite3

from chutes_core.validator.domain.extras import Secret
from chutes_core.validator.store.connection import Connection


class SecretRows:
    """Secrets by id, owner and chute."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def insert(self, secret: Secret, sealed: bytes) -> None:
        """Keep a new secret.

        Raises:
            Conflict: ``constraint`` where the chute has a secret of this key.
        """
        self._db.insert(
            "secrets",
            {
                "secret_id": secret.secret_id,
                "user_id": secret.user_id,
                "chute_id": secret.chute_id,
                "purpose": secret.purpose,
                "key": secret.key,
                "created_at_s": secret.created_at_s,
                "sealed_value": sealed,
            },
        )

    def get(self, secret_id: str) -> Secret | None:
        """Return a secret without its value, or None."""
        row = self._db.one("SELECT * FROM secrets WHERE secret_id=?", (secret_id,))
        return None if row is None else _secret(row)

    def by_owner(self, user_id: str) -> tuple[Secret, ...]:
        """Return a user's secrets, newest first."""
        rows = self._db.all(
            "SELECT * FROM secrets WHERE user_id=? ORDER BY created_at_s DESC, secret_id",
            (user_id,),
        )
        return tuple(map(_secret, rows))

    def of_chute(self, user_id: str, chute_id: str) -> tuple[Secret, ...]:
        """Return the secrets that an owner gave to a chute."""
        rows = self._db.all(
            "SELECT * FROM secrets WHERE user_id=? AND chute_id=? ORDER BY key",
            (user_id, chute_id),
        )
        return tuple(map(_secret, rows))

    def sealed_of(self, secret_id: str) -> bytes | None:
        """Return the sealed value, or None."""
        row = self._db.one("SELECT sealed_value FROM secrets WHERE secret_id=?", (secret_id,))
        return None if row is None else bytes(row["sealed_value"])

    def sealed_bytes_of_chute(self, chute_id: str) -> int:
        """Return how many sealed bytes a chute's secrets take."""
        sql = "SELECT sum(length(sealed_value)) FROM secrets WHERE chute_id=?"
        return self._db.number(sql, (chute_id,))

    def delete(self, secret_id: str) -> bool:
        """Forget a secret; False where there was none."""
        return self._db.change("DELETE FROM secrets WHERE secret_id=?", (secret_id,)) > 0


def _secret(row: sqlite3.Row) -> Secret:
    return Secret(
        secret_id=row["secret_id"],
        user_id=row["user_id"],
        chute_id=row["chute_id"],
        purpose=row["purpose"],
        key=row["key"],
        created_at_s=row["created_at_s"],
    )
