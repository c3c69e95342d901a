"""Where an account's roles come from, and notices of their end. Invariant: pure records."""

from dataclasses import dataclass
from typing import Literal

BY_OPERATOR = "operator"
BY_DEPOSIT = "deposit"
LinkKind = Literal["validator", "subnet_owner"]


@dataclass(frozen=True)
class Link:
    """A chain hotkey that gives its account free calls and the developer role while it is valid."""

    hotkey_ss58: str
    user_id: str
    kind: LinkKind
    linked_at_s: int
    valid: bool = True

    @property
    def source(self) -> str:
        """Name this link as the source of its roles."""
        return f"link:{self.hotkey_ss58}"


@dataclass(frozen=True)
class Notice:
    """The chutes of an account that lost the developer role drain at ``drains_at_s``."""

    user_id: str
    at_s: int
    drains_at_s: int
    reason: str
