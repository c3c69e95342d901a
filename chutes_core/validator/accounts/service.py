"""Users: registration, authentication by hotkey or key, and their API keys.

Invariant: one account per hotkey and per username; a number is never used twice, since both of an
account's addresses derive from it; neither a fingerprint nor a key's secret is stored, only their
SHA-256, and each is shown once.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field, replace
from typing import Protocol

from bittensor_core import decode_ss58

from chutes_core.base import ids
from chutes_core.base.clock import Clock
from chutes_core.base.errors import Invalid, NotFound, Unauthenticated
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.domain.accounts import Account, ApiKey, Scope
from chutes_core.validator.domain.keytext import format_key, hash_secret, new_secret, parse_key
from chutes_core.validator.store.database import Store

USERNAME_PATTERN = r"^[a-z0-9_-]{3,32}$"
MAX_KEYS = 200
MAX_SCOPES = 100
MAX_TIME_S = 253_402_300_799  # the last second of the year 9999
_FINGERPRINT_BYTES = 24
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class AddressBook(Protocol):
    """Derives an account's two addresses from the treasury's public keys."""

    def payment(self, number: int) -> str:
        """Return where account ``number`` pays."""
        ...

    def deposit(self, number: int) -> str:
        """Return where account ``number`` leaves its developer deposit."""
        ...


@dataclass(frozen=True)
class Registration:
    """A new account, and the fingerprint that is shown this once."""

    account: Account
    fingerprint: str = field(repr=False)


@dataclass(frozen=True)
class NewKey:
    """A new key, and its text that is shown this once."""

    key: ApiKey
    text: str = field(repr=False)


@dataclass(frozen=True)
class KeyBounds:
    """What a key may be bound to; None where it is not.

    Attributes:
        expires_at_s: Unix seconds from which on it is refused.
        budget_rao: what calls and deployments with it may cost, all together.
        calls_per_minute: calls that it may make, beside the house's own limit.
    """

    expires_at_s: int | None = None
    budget_rao: int | None = None
    calls_per_minute: int | None = None


_UNBOUND = KeyBounds()


class Accounts:
    """All that concerns users and their keys."""

    def __init__(self, store: Store, clock: Clock, addresses: AddressBook) -> None:
        self._store = store
        self._clock = clock
        self._addresses = addresses

    def register(self, *, hotkey_ss58: str, username: str, coldkey_ss58: str) -> Registration:
        """Open an account for a hotkey whose signature was verified.

        Raises:
            Invalid: ``bad_username`` or ``bad_coldkey``.
            Conflict: ``username_taken`` or ``hotkey_taken``.
        """
        if not re.fullmatch(USERNAME_PATTERN, username):
            raise Invalid(
                "bad_username",
                "the username does not fit",
                hint="3 to 32 of: a-z 0-9 _ -",
            )
        if not _is_address(coldkey_ss58):
            raise Invalid("bad_coldkey", "the coldkey is no SS58 address")
        fingerprint = secrets.token_hex(_FINGERPRINT_BYTES)

        def build(number: int) -> Account:
            return Account(
                user_id=ids.new_id(),
                number=number,
                username=username,
                hotkey_ss58=hotkey_ss58,
                coldkey_ss58=coldkey_ss58,
                payment_address=self._addresses.payment(number),
                deposit_address=self._addresses.deposit(number),
                fingerprint_sha256=hashlib.sha256(fingerprint.encode()).hexdigest(),
                created_at_s=self._clock.now_s(),
            )

        return Registration(self._store.accounts.create(build), fingerprint)

    def signed(self, hotkey_ss58: str, user_id: str | None = None) -> Principal:
        """Return the caller behind a verified hotkey signature.

        Args:
            hotkey_ss58: who signed.
            user_id: what the request says its user is, if it says so; it must agree.

        Raises:
            Unauthenticated: ``not_registered`` or ``wrong_user``.
        """
        account = self._store.accounts.by_hotkey(hotkey_ss58)
        if account is None:
            raise Unauthenticated(
                "not_registered",
                "this hotkey has no account here",
                hint="run: chutes register",
            )
        if user_id and user_id != account.user_id:
            raise Unauthenticated("wrong_user", "the hotkey belongs to another user id")
        return Principal(account)

    def with_key(self, text: str) -> Principal:
        """Return the caller behind an API key.

        Raises:
            Unauthenticated: ``bad_key``, whatever is wrong with it, or ``key_expired``.
        """
        said = parse_key(text)
        key = None if said is None else self._store.keys.by_secret(said.secret_sha256)
        if said is None or key is None or (key.key_id, key.user_id) != (said.key_id, said.user_id):
            raise _bad_key()
        account = self._store.accounts.get(key.user_id)
        if account is None:
            raise _bad_key()
        now_s = self._clock.now_s()
        if key.expired(now_s):
            raise Unauthenticated("key_expired", "this API key has expired")
        self._store.keys.touch(key.key_id, now_s)
        return Principal(account, key)

    def find(self, id_or_name: str) -> Account:
        """Return an account by user id or username.

        Raises:
            NotFound: ``no_such_user``.
        """
        rows = self._store.accounts
        account = rows.get(id_or_name) or rows.by_username(id_or_name)
        if account is None:
            raise NotFound("no_such_user", f"there is no user {id_or_name}")
        return account

    def create_key(
        self,
        owner: Account,
        *,
        name: str,
        admin: bool,
        scopes: tuple[Scope, ...],
        bounds: KeyBounds = _UNBOUND,
    ) -> NewKey:
        """Make a key; what it grants is exactly its scopes, or everything for an admin key.

        A scope's object may be named by id, or by the name of one of the owner's own (a chute's
        name, an image's name:tag); what is kept is the id.

        Raises:
            Invalid: ``bad_key_name``, ``no_scopes``, ``too_many_scopes``, ``bad_expiry`` or
                ``too_many_keys``.
            NotFound: ``no_such_chute`` or ``no_such_image`` for a name.
        """
        now_s = self._clock.now_s()
        _check_key(name, admin=admin, scopes=scopes, bounds=bounds, now_s=now_s)
        secret = new_secret()
        key = ApiKey(
            key_id=ids.new_id(),
            user_id=owner.user_id,
            name=name,
            secret_sha256=hash_secret(secret),
            admin=admin,
            scopes=() if admin else tuple(self._by_id(owner, scope) for scope in scopes),
            created_at_s=now_s,
            expires_at_s=bounds.expires_at_s,
            budget_rao=bounds.budget_rao,
            calls_per_minute=bounds.calls_per_minute,
        )
        with self._store.transaction():
            if len(self._store.keys.by_owner(owner.user_id)) >= MAX_KEYS:
                raise Invalid("too_many_keys", f"an account has at most {MAX_KEYS} keys")
            self._store.keys.insert(key)
        return NewKey(key, format_key(key.key_id, owner.user_id, secret))

    def keys(self, owner: Account) -> tuple[ApiKey, ...]:
        """Return an account's live keys, newest first."""
        return self._store.keys.by_owner(owner.user_id)

    def key(self, owner: Account, key_id: str) -> ApiKey:
        """Return one live key of an account.

        Raises:
            NotFound: ``no_such_key``.
        """
        key = self._store.keys.get(key_id)
        if key is None or key.user_id != owner.user_id or key.revoked_at_s is not None:
            raise NotFound("no_such_key", "there is no such API key")
        return key

    def delete_key(self, owner: Account, key_id: str) -> None:
        """End a key for good.

        Raises:
            NotFound: ``no_such_key``.
        """
        key = self.key(owner, key_id)
        self._store.keys.revoke(key.key_id, self._clock.now_s())

    def _by_id(self, owner: Account, scope: Scope) -> Scope:
        """Return a scope whose object is named by its id."""
        named = scope.object_id
        if named is None or _UUID.fullmatch(named):
            return scope
        if scope.object_type == "images":
            return replace(scope, object_id=self._image_id(owner, named))
        chute = self._store.chutes.by_name(owner.username, named)
        if chute is None:
            raise NotFound("no_such_chute", f"you have no chute {named[:200]}")
        return replace(scope, object_id=chute.chute_id)

    def _image_id(self, owner: Account, named: str) -> str:
        full, _, tag = named.rpartition(":")
        username, _, name = full.rpartition("/")
        image = self._store.images.by_name(username or owner.username, name, tag)
        if image is None or image.user_id != owner.user_id:
            raise NotFound("no_such_image", f"you have no image {named[:200]}")
        return image.image_id


def _check_key(
    name: str, *, admin: bool, scopes: tuple[Scope, ...], bounds: KeyBounds, now_s: int
) -> None:
    if not 1 <= len(name) <= 64:
        raise Invalid("bad_key_name", "a key's name has 1 to 64 characters")
    if not admin and not scopes:
        raise Invalid(
            "no_scopes",
            "a key that is not an admin key needs a scope",
            hint='e.g. {"object_type": "chutes", "action": "invoke"}',
        )
    if len(scopes) > MAX_SCOPES:
        raise Invalid("too_many_scopes", f"a key has at most {MAX_SCOPES} scopes")
    if bounds.expires_at_s is not None and not now_s < bounds.expires_at_s <= MAX_TIME_S:
        raise Invalid("bad_expiry", "the key would expire before it is made")


def _bad_key() -> Unauthenticated:
    return Unauthenticated("bad_key", "this API key is not valid here", hint="was it deleted?")


def _is_address(text: str) -> bool:
    try:
        decode_ss58(text)
    except ValueError:
        return False
    return True
