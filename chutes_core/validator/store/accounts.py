"""Rows of accounts. Invariant: a number is given once, for two addresses are derived from it."""

import json
import sqlite3
from collections.abc import Callable, Iterable

from chutes_core.base.errors import Conflict, NotFound
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.rights import BY_OPERATOR
from chutes_core.validator.store.connection import Connection, Value


class AccountRows:
    """Accounts by id, hotkey, username and payment address."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def create(self, build: Callable[[int], Account]) -> Account:
        """Take the next number, let ``build`` make the account for it, and keep it.

        The commit is durable: a number that was shown as an address is never given again.

        Raises:
            Conflict: ``username_taken`` or ``hotkey_taken``.
        """
        with self._db.transaction(durable=True):
            number = self._db.number("SELECT max(number) FROM accounts") + 1
            account = build(number)
            if self.by_username(account.username) is not None:
                raise Conflict("username_taken", f"the username {account.username} is taken")
            if self.by_hotkey(account.hotkey_ss58) is not None:
                raise Conflict("hotkey_taken", "this hotkey has an account already")
            self._db.insert("accounts", _row(account))
            self._grant(account.user_id, BY_OPERATOR, account.roles)
        return account

    def get(self, user_id: str) -> Account | None:
        """Return the account with this id, or None."""
        return _maybe(self._db.one("SELECT * FROM accounts WHERE user_id=?", (user_id,)))

    def by_hotkey(self, hotkey_ss58: str) -> Account | None:
        """Return the account of a hotkey, or None."""
        return _maybe(self._db.one("SELECT * FROM accounts WHERE hotkey_ss58=?", (hotkey_ss58,)))

    def by_username(self, username: str) -> Account | None:
        """Return the account of a username, or None."""
        return _maybe(self._db.one("SELECT * FROM accounts WHERE username=?", (username,)))

    def by_payment_address(self, address_ss58: str) -> Account | None:
        """Return the account that is paid at this address, or None."""
        return _maybe(
            self._db.one("SELECT * FROM accounts WHERE payment_address=?", (address_ss58,))
        )

    def all(self) -> tuple[Account, ...]:
        """Return every account in the order of their numbers."""
        return tuple(map(_account, self._db.all("SELECT * FROM accounts ORDER BY number")))

    def by_deposit_address(self, address_ss58: str) -> Account | None:
        """Return the account that leaves its deposit at this address, or None."""
        return _maybe(
            self._db.one("SELECT * FROM accounts WHERE deposit_address=?", (address_ss58,))
        )

    def set_roles(self, user_id: str, roles: Iterable[str]) -> None:
        """Replace the roles that the operator gives; those of deposit and links stay.

        Raises:
            NotFound: ``no_such_user``.
        """
        self.set_grants(user_id, BY_OPERATOR, roles)

    def set_grants(self, user_id: str, source: str, roles: Iterable[str]) -> frozenset[str]:
        """Replace the roles that come from one source; return all that the account has then.

        Raises:
            NotFound: ``no_such_user``.
        """
        with self._db.transaction():
            if self.get(user_id) is None:
                raise NotFound("no_such_user", f"there is no user {user_id}")
            self._db.change(
                "DELETE FROM role_grants WHERE user_id=? AND source=?", (user_id, source)
            )
            self._grant(user_id, source, roles)
            rows = self._db.all(
                "SELECT DISTINCT role FROM role_grants WHERE user_id=? ORDER BY role", (user_id,)
            )
            has = frozenset(str(row["role"]) for row in rows)
            changes: dict[str, Value] = {"roles": json.dumps(sorted(has))}
            self._db.update("accounts", changes, "user_id=?", (user_id,))
        return has

    def prove_coldkey(self, user_id: str, coldkey_ss58: str, how: str) -> None:
        """Store that an account's coldkey is proven, by ``signature`` or by the ``chain``."""
        changes: dict[str, Value] = {"coldkey_ss58": coldkey_ss58, "coldkey_proven": how}
        self._db.update("accounts", changes, "user_id=?", (user_id,))

    def recover(self, user_id: str, hotkey_ss58: str, fingerprint_sha256: str) -> None:
        """Give an account another hotkey and fingerprint.

        Raises:
            Conflict: ``hotkey_taken``.
        """
        with self._db.transaction(durable=True):
            if self.by_hotkey(hotkey_ss58) is not None:
                raise Conflict("hotkey_taken", "this hotkey has an account already")
            changes: dict[str, Value] = {
                "hotkey_ss58": hotkey_ss58,
                "fingerprint_sha256": fingerprint_sha256,
            }
            self._db.update("accounts", changes, "user_id=?", (user_id,))

    def _grant(self, user_id: str, source: str, roles: Iterable[str]) -> None:
        for role in sorted(set(roles)):
            row: dict[str, Value] = {"user_id": user_id, "source": source, "role": role}
            self._db.insert("role_grants", row)


def _row(account: Account) -> dict[str, Value]:
    return {
        "number": account.number,
        "user_id": account.user_id,
        "username": account.username,
        "hotkey_ss58": account.hotkey_ss58,
        "coldkey_ss58": account.coldkey_ss58,
        "payment_address": account.payment_address,
        "deposit_address": account.deposit_address,
        "fingerprint_sha256": account.fingerprint_sha256,
        "created_at_s": account.created_at_s,
        "roles": json.dumps(sorted(account.roles)),
        "coldkey_proven": account.coldkey_proven,
    }


def _account(row: sqlite3.Row) -> Account:
    return Account(
        user_id=row["user_id"],
        number=row["number"],
        username=row["username"],
        hotkey_ss58=row["hotkey_ss58"],
        coldkey_ss58=row["coldkey_ss58"],
        payment_address=row["payment_address"],
        deposit_address=row["deposit_address"],
        fingerprint_sha256=row["fingerprint_sha256"],
        created_at_s=row["created_at_s"],
        roles=frozenset(json.loads(row["roles"])),
        coldkey_proven=row["coldkey_proven"],
    )


def _maybe(row: sqlite3.Row | None) -> Account | None:
    return None if row is None else _account(row)
