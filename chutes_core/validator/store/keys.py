"""Rows of API keys. Invariant: only the SHA-256 of a secret is stored, and a revoked key stays."""

import json
import sqlite3

from chutes_core.validator.domain.accounts import ApiKey, Scope
from chutes_core.validator.store.connection import Connection, Value


class KeyRows:
    """API keys by the hash of their secret and by owner."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def insert(self, key: ApiKey) -> None:
        """Keep a new key."""
        self._db.insert("api_keys", _row(key))

    def get(self, key_id: str) -> ApiKey | None:
        """Return the key with this id, revoked or not, or None."""
        return _maybe(self._db.one("SELECT * FROM api_keys WHERE key_id=?", (key_id,)))

    def by_secret(self, secret_sha256: str) -> ApiKey | None:
        """Return the live key whose secret has this hash, or None."""
        return _maybe(
            self._db.one(
                "SELECT * FROM api_keys WHERE secret_sha256=? AND revoked_at_s IS NULL",
                (secret_sha256,),
            )
        )

    def by_owner(self, user_id: str) -> tuple[ApiKey, ...]:
        """Return the live keys of a user, newest first."""
        rows = self._db.all(
            "SELECT * FROM api_keys WHERE user_id=? AND revoked_at_s IS NULL"
            " ORDER BY created_at_s DESC, key_id",
            (user_id,),
        )
        return tuple(map(_key, rows))

    def all_live(self) -> tuple[ApiKey, ...]:
        """Return every key that is not revoked."""
        return tuple(map(_key, self._db.all("SELECT * FROM api_keys WHERE revoked_at_s IS NULL")))

    def revoke(self, key_id: str, at_s: int) -> bool:
        """End a key; False where it was revoked before or never was."""
        changes: dict[str, Value] = {"revoked_at_s": at_s}
        where = "key_id=? AND revoked_at_s IS NULL"
        return self._db.update("api_keys", changes, where, (key_id,)) > 0

    def spend(self, key_id: str, rao: int) -> None:
        """Count what a key's call or deployment cost."""
        self._db.change("UPDATE api_keys SET spent_rao=spent_rao+? WHERE key_id=?", (rao, key_id))

    def touch(self, key_id: str, at_s: int) -> None:
        """Note that the key was used; an older time never replaces a newer one."""
        self._db.change(
            "UPDATE api_keys SET last_used_at_s=max(coalesce(last_used_at_s, 0), ?) WHERE key_id=?",
            (at_s, key_id),
        )


def _row(key: ApiKey) -> dict[str, Value]:
    scopes = [[scope.object_type, scope.object_id, scope.action] for scope in key.scopes]
    return {
        "key_id": key.key_id,
        "user_id": key.user_id,
        "name": key.name,
        "secret_sha256": key.secret_sha256,
        "admin": int(key.admin),
        "scopes": json.dumps(scopes),
        "created_at_s": key.created_at_s,
        "last_used_at_s": key.last_used_at_s,
        "revoked_at_s": key.revoked_at_s,
        "expires_at_s": key.expires_at_s,
        "budget_rao": key.budget_rao,
        "spent_rao": key.spent_rao,
        "calls_per_minute": key.calls_per_minute,
    }


def _key(row: sqlite3.Row) -> ApiKey:
    return ApiKey(
        key_id=row["key_id"],
        user_id=row["user_id"],
        name=row["name"],
        secret_sha256=row["secret_sha256"],
        admin=bool(row["admin"]),
        scopes=tuple(Scope(kind, item, action) for kind, item, action in json.loads(row["scopes"])),
        created_at_s=row["created_at_s"],
        last_used_at_s=row["last_used_at_s"],
        revoked_at_s=row["revoked_at_s"],
        expires_at_s=row["expires_at_s"],
        budget_rao=row["budget_rao"],
        spent_rao=row["spent_rao"],
        calls_per_minute=row["calls_per_minute"],
    )


def _maybe(row: sqlite3.Row | None) -> ApiKey | None:
    return None if row is None else _key(row)
