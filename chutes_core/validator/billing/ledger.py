"""What users have and how it came about, read from the ledger. Invariant: reads only."""

from dataclasses import dataclass

from chutes_core.base.units import Rao
from chutes_core.validator.domain.money import user_credit
from chutes_core.validator.store.database import Store
from chutes_core.validator.store.ledger import Line


@dataclass(frozen=True)
class Statement:
    """One page of a user's ledger lines, newest first, and how many there are in all."""

    total: int
    lines: tuple[Line, ...]


class Ledger:
    """Balances and statements of users."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def balance(self, user_id: str) -> Rao:
        """Return a user's prepaid credit: what was paid in, less what is settled."""
        return Rao(self._store.ledger.balance(user_credit(user_id)))

    def statement(self, user_id: str, *, page: int, limit: int) -> Statement:
        """Return page ``page`` (from 0) of ``limit`` lines."""
        account = user_credit(user_id)
        with self._store.transaction():
            lines = self._store.ledger.lines(account, offset=page * limit, limit=limit)
            return Statement(self._store.ledger.count_lines(account), lines)
