"""Money that leaves an account outside of a call: gifts and fees.

The gateway admits calls from a picture of the balances, so whoever takes money elsewhere has it
held there from before the balance is read until a picture shows the entry. Invariant: every entry
that takes from a user's credit, but a call's own charge, is written inside such a `Spend`.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from typing_extensions import Self


class Spend(Protocol):
    """One spending; a context manager around the store's transaction, used in any thread."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End: what was written stays held until it is shown, all else is free again."""
        ...

    def hold(self, purse: str, rao: int) -> int:
        """Set money aside, and return what others hold of the same purse at this moment.

        Args:
            purse: a user id, or `key_purse` of a key that has a budget.
            rao: what will be taken.
        """
        ...

    def written(self, entry_id: int) -> None:
        """Name the ledger's entry that takes the money, before its transaction commits."""
        ...


Spending = Callable[[], Spend]


def key_purse(key_id: str) -> str:
    """Name the purse of a key that has a budget."""
    return f"key:{key_id}"


def free_purse(user_id: str) -> str:
    """Name the purse of an account's free calls; what lies in it is calls, not money."""
    return f"free:{user_id}"


class Unwatched:
    """The spending of a process without a gateway: nobody else holds anything."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""

    def hold(self, purse: str, rao: int) -> int:
        """Nobody holds anything."""
        del purse, rao
        return 0

    def written(self, entry_id: int) -> None:
        """Nobody waits for it."""
