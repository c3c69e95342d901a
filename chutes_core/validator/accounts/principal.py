"""Who calls: an account, by its own signature or by one of its keys."""

from dataclasses import dataclass

from chutes_core.base.errors import Forbidden
from chutes_core.validator.domain.accounts import Account, Action, ApiKey, ObjectType


@dataclass(frozen=True)
class Principal:
    """A proven caller; ``key`` is None where the hotkey itself signed."""

    account: Account
    key: ApiKey | None = None

    def may(self, object_type: ObjectType, action: Action, object_id: str | None = None) -> bool:
        """Tell whether the caller's credential covers this; ownership is checked elsewhere."""
        return self.key is None or self.key.allows(object_type, action, object_id)

    def require(
        self, object_type: ObjectType, action: Action, object_id: str | None = None
    ) -> None:
        """Check that the caller's credential covers this.

        Raises:
            Forbidden: ``scope``.
        """
        if not self.may(object_type, action, object_id):
            raise Forbidden(
                "scope",
                f"this API key has no scope to {action} {object_type}",
                hint="sign with your hotkey, or create a key with the scope",
            )

    def require_admin(self) -> None:
        """Check that the caller is the owner itself or an admin key.

        Raises:
            Forbidden: ``scope``.
        """
        if self.key is not None and not self.key.admin:
            raise Forbidden("scope", "this needs an admin key or the owner's signature")

    def require_key_maker(self) -> None:
        """Check that the caller may make keys: a key with bounds would make one without them.

        Raises:
            Forbidden: ``scope`` or ``key_bounded``.
        """
        self.require_admin()
        if self.key is not None and self.key.bounded:
            raise Forbidden(
                "key_bounded",
                "a key with an expiry, a budget or a rate of its own makes no keys",
                hint="sign with your hotkey, or use an admin key without bounds",
            )
