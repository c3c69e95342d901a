"""Accounts, API keys and scopes. Invariant: a key grants only what one of its scopes names."""

from dataclasses import dataclass
from typing import Literal

ObjectType = Literal["images", "chutes", "invocations"]
Action = Literal["read", "write", "delete", "invoke"]

DEVELOPER = "developer"
FREE = "free"


@dataclass(frozen=True)
class Account:
    """One user. ``number`` is the soft-derivation index of both of the account's addresses.

    The coldkey is a claim until ``coldkey_proven`` says how it was proven: ``signature`` (the key
    signed) or ``chain`` (it owns the hotkey there).
    """

    user_id: str
    number: int
    username: str
    hotkey_ss58: str
    coldkey_ss58: str
    payment_address: str
    deposit_address: str
    fingerprint_sha256: str
    created_at_s: int
    roles: frozenset[str] = frozenset()
    coldkey_proven: str = ""


@dataclass(frozen=True)
class Scope:
    """A right over objects of one type; ``object_id`` None means all that the owner has."""

    object_type: ObjectType
    object_id: str | None = None
    action: Action | None = None

    def allows(self, object_type: str, action: str, object_id: str | None) -> bool:
        """Tell whether this scope covers an action; None fields match everything."""
        return (
            self.object_type == object_type
            and self.action in (None, action)
            and self.object_id in (None, object_id)
        )


@dataclass(frozen=True)
class ApiKey:
    """A key as it is stored: only the SHA-256 of its secret part is kept (keys are random).

    ``expires_at_s``, ``budget_rao`` and ``calls_per_minute`` bound it where they are set;
    ``spent_rao`` is what calls and deployments with it have cost.
    """

    key_id: str
    user_id: str
    name: str
    secret_sha256: str
    admin: bool
    scopes: tuple[Scope, ...]
    created_at_s: int
    last_used_at_s: int | None = None
    revoked_at_s: int | None = None
    expires_at_s: int | None = None
    budget_rao: int | None = None
    spent_rao: int = 0
    calls_per_minute: int | None = None

    @property
    def bounded(self) -> bool:
        """Whether its time, its spending or its rate has a limit."""
        return any(
            bound is not None
            for bound in (self.expires_at_s, self.budget_rao, self.calls_per_minute)
        )

    def expired(self, now_s: int) -> bool:
        """Tell whether its time is over."""
        return self.expires_at_s is not None and now_s >= self.expires_at_s

    def left_rao(self) -> int | None:
        """Return what its budget leaves by the store's records; None without a budget."""
        return None if self.budget_rao is None else max(0, self.budget_rao - self.spent_rao)

    def allows(self, object_type: str, action: str, object_id: str | None = None) -> bool:
        """Tell whether the key may do this; an admin key may do all that its owner may.

        A `chutes` scope with action `invoke` and an `invocations` scope both grant calls.
        """
        if self.admin:
            return True
        if any(scope.allows(object_type, action, object_id) for scope in self.scopes):
            return True
        if object_type == "chutes" and action == "invoke":
            return any(s.allows("invocations", "invoke", object_id) for s in self.scopes)
        return False
