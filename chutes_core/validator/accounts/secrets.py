"""Secrets of chutes: sealed at rest, handed to attested instances, never shown again.

Path: `chutes secrets create` -> here -> store; launches/lifecycle -> `of_chute` -> StartOrder,
which goes over the proven connection only. Invariant: a value is readable here in two moments
alone, when it arrives and when an instance that passed its proof is started.

Honest line: the miner owns the host and can read what runs on it, so a secret is safe from third
parties, not from the miner whose machine serves the chute.
"""

import re
from collections.abc import Mapping
from typing import Protocol

from chutes_core.base import ids
from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict, Exhausted, Invalid, NotFound
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.extras import Secret
from chutes_core.validator.store.database import Store

MAX_VALUE_BYTES = 16 * 1024
MAX_SEALED_BYTES = 64 * 1024  # of one chute: they travel in one frame with its code
MAX_SECRETS = 500  # of one account
MINER_NOTE = (
    "secrets are encrypted at rest and reach only instances that passed their proof; "
    "the miner owns that host and can read what runs on it: use keys that you can revoke"
)
# What the runner refuses to set (runner/loader, check_env); checked here too, for here it can
# still be told to the developer.
RESERVED = frozenset(("CHUTES_EXECUTION_CONTEXT", "GLIBC_TUNABLES"))
RESERVED_PREFIXES = ("CHUTES_RUNNER_", "PYTHON", "LD_", "DYLD_")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CHUTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}")
_KIND = "secret"


class Sealer(Protocol):
    """Seals with the validator's master key, bound to a record and a kind."""

    def seal(self, launch_id: str, kind: str, plain: bytes) -> bytes:
        """Seal a value."""
        ...

    def reveal(self, launch_id: str, kind: str, sealed: bytes) -> bytes:
        """Open what `seal` made."""
        ...


class Secrets:
    """All that concerns secrets."""

    def __init__(self, store: Store, clock: Clock, sealer: Sealer) -> None:
        self._store = store
        self._clock = clock
        self._sealer = sealer

    def create(self, owner: Account, *, purpose: str, key: str, value: str) -> Secret:
        """Keep a variable for a chute of the owner, deployed already or not yet.

        Args:
            owner: whose chute it is.
            purpose: the chute's id or name.
            key: the variable's name.
            value: what it holds.

        Raises:
            NotFound: ``no_such_chute``.
            Invalid: ``bad_secret_key`` or ``bad_secret_value``.
            Conflict: ``secret_exists``.
            Exhausted: ``too_many_secrets``.
        """
        _check(key, value)
        secret = Secret(
            secret_id=ids.new_id(),
            user_id=owner.user_id,
            chute_id=self._chute_id(owner, purpose),
            purpose=purpose,
            key=key,
            created_at_s=self._clock.now_s(),
        )
        sealed = self._sealer.seal(secret.secret_id, _KIND, value.encode())
        with self._store.transaction():
            self._check_room(owner, secret, len(sealed))
            self._store.secrets.insert(secret, sealed)
        return secret

    def list(self, owner: Account) -> tuple[Secret, ...]:
        """Return an account's secrets without their values, newest first."""
        return self._store.secrets.by_owner(owner.user_id)

    def get(self, owner: Account, secret_id: str) -> Secret:
        """Return one secret without its value.

        Raises:
            NotFound: ``no_such_secret``.
        """
        secret = self._store.secrets.get(secret_id)
        if secret is None or secret.user_id != owner.user_id:
            raise NotFound("no_such_secret", "there is no such secret", hint="chutes secrets list")
        return secret

    def delete(self, owner: Account, secret_id: str) -> None:
        """Forget a secret; instances that run keep what they were given.

        Raises:
            NotFound: ``no_such_secret``.
        """
        self._store.secrets.delete(self.get(owner, secret_id).secret_id)

    def of_chute(self, chute: Chute) -> Mapping[str, str]:
        """Return the variables to hand to an attested instance of a chute."""
        found = {}
        for secret in self._store.secrets.of_chute(chute.user_id, chute.chute_id):
            sealed = self._store.secrets.sealed_of(secret.secret_id)
            if sealed is not None:  # else it was deleted just now
                value = self._sealer.reveal(secret.secret_id, _KIND, sealed)
                found[secret.key] = value.decode()
        return found

    def _chute_id(self, owner: Account, purpose: str) -> str:
        rows = self._store.chutes
        chute = rows.get(purpose) or rows.by_name(owner.username, purpose)
        if chute is not None and chute.user_id == owner.user_id:
            return chute.chute_id
        if _UUID.fullmatch(purpose) or not _CHUTE_NAME.fullmatch(purpose):
            raise NotFound(
                "no_such_chute",
                f"you have no chute {purpose[:200]}",
                hint="give the name or id of a chute of yours",
            )
        return ids.chute_id(owner.username, purpose)  # a start-up hook may need it at first

    def _check_room(self, owner: Account, secret: Secret, size: int) -> None:
        given = self._store.secrets.of_chute(owner.user_id, secret.chute_id)
        if any(other.key == secret.key for other in given):
            raise Conflict(
                "secret_exists",
                f"this chute has a secret {secret.key} already",
                hint="delete it first: chutes secrets delete",
            )
        taken = self._store.secrets.sealed_bytes_of_chute(secret.chute_id)
        if taken + size > MAX_SEALED_BYTES:
            raise Exhausted(
                "too_many_secrets",
                f"a chute's secrets have at most {MAX_SEALED_BYTES} bytes together",
                hint="delete one, or shorten the values",
            )
        if len(self._store.secrets.by_owner(owner.user_id)) >= MAX_SECRETS:
            raise Exhausted(
                "too_many_secrets",
                f"an account has at most {MAX_SECRETS} secrets",
                hint="delete one: chutes secrets delete",
            )


def _check(key: str, value: str) -> None:
    if not _NAME.fullmatch(key) or key in RESERVED or key.startswith(RESERVED_PREFIXES):
        raise Invalid(
            "bad_secret_key",
            "the key is no name of a variable that may be set",
            hint=f"letters, digits and _; not beginning with {', '.join(RESERVED_PREFIXES)}",
        )
    if not value or len(value.encode()) > MAX_VALUE_BYTES or "\0" in value:
        raise Invalid(
            "bad_secret_value",
            f"a value has 1 to {MAX_VALUE_BYTES} bytes and no NUL",
            hint="put large data into the image, or let the chute fetch it",
        )
