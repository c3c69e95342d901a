"""What a worker may take of the purses that it shares with others: holds against leases.

Path: admission -> `LeasedHolds.obtain` (asks the main process if a lease is short) -> call ->
metering settles. Invariant, for every purse: what is held open or charged, and not yet shown by the
worker's newest snapshot, never exceeds the lease, which falls by a charge in the moment in which
the snapshot shows it. So does the main process count (`leases`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from chutes_core.base.errors import PaymentRequired
from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import PayerView
from chutes_core.validator.gateway.holds import Hold, Holds
from chutes_core.validator.gateway.workers.asking import Asking

AHEAD_CALLS = 4  # more is asked for, without waiting, once fewer calls than these fit


class LeaseShort(PaymentRequired):
    """The lease does not cover a call; the main process may have more."""

    def __init__(self, purse: str, missing: int, whole: int) -> None:
        super().__init__("insufficient_balance", "more has to be leased first")
        self.purse = purse
        self.missing = missing
        self.whole = whole


class LeasedHolds(Holds):
    """The holds of one worker; all on its event loop."""

    def __init__(self, asking: Asking) -> None:
        super().__init__()
        self._asking = asking
        self._leases: dict[str, int] = {}
        self._used: set[str] = set()  # since the last `idle`
        self._asked: set[str] = set()
        self._due: Counter[str] = Counter()  # granted to calls that go on in a moment
        self._elsewhere: dict[str, int] | None = None

    def open(self, payer: PayerView, rate: Rate, key: ApiKey | None = None) -> Hold:
        """Set one call's money aside, or one of its payer's free calls.

        Raises:
            LeaseShort: a lease has to be raised first (`obtain` does).
        """
        hold = super().open(payer, rate, key)
        for name in hold._names:
            self._used.add(name)
            enough = AHEAD_CALLS * hold._taken
            if self._left(name) < enough and name not in self._asked:
                self._asked.add(name)
                self._asking.ask_soon(name, enough)
        return hold

    async def obtain(self, payer: PayerView, rate: Rate, key: ApiKey | None = None) -> Hold:
        """Set one call's money aside, asking for it where a lease is short.

        Raises:
            PaymentRequired: ``insufficient_balance``, ``free_calls_spent`` or
                ``key_budget_spent``: not all workers together have it.
            Unavailable: ``gateway_busy``.
        """
        refused: dict[str, int] = {}
        while True:
            self._elsewhere = refused
            try:
                return self.open(payer, rate, key)
            except LeaseShort as short:
                name, missing, whole = short.purse, short.missing, short.whole
            finally:
                self._elsewhere = None
            said = await self._ask(name, missing, whole)
            if not said["amount"]:
                refused[name] = int(said["free"])

    def granted(self, name: str, amount: int) -> None:
        """Raise a lease."""
        if amount:
            self._leases[name] = self._leases.get(name, 0) + amount
            self._used.add(name)
            self._asked.discard(name)  # refused: asked again after the next `idle`

    def give_up(self, name: str) -> int:
        """Return how much of a purse is neither taken nor due, and give it up."""
        amount = max(0, self._left(name) - self._due[name])
        self._lower(name, amount)
        return amount

    def idle(self) -> dict[str, int]:
        """Give up what no call has used since the last time; return how much, by purse."""
        idle = [name for name in self._leases if name not in self._used]
        self._used.clear()
        self._asked.clear()
        given = {name: self.give_up(name) for name in idle}
        return {name: amount for name, amount in given.items() if amount}

    def leased(self, name: str) -> int:
        """Return how much of a purse is leased."""
        return self._leases.get(name, 0)

    def replay(self, invocations: Iterable[Invocation]) -> None:
        """Nothing: the main process settles a worker's journal before it starts the worker."""

    def _room(self, name: str, there: int, need: int) -> int:
        """Return what a call may take of a purse.

        Raises:
            LeaseShort: it needs more, and the main process has not been asked.
        """
        del there
        left = self._left(name)
        if left >= need:
            return left
        refused = self._elsewhere or {}
        if name not in refused:
            raise LeaseShort(name, need - max(0, left), need)
        return left + min(refused[name], need - left - 1)

    def _show(self, name: str, amount: int) -> None:
        super()._show(name, amount)
        self._lower(name, amount)

    async def _ask(self, name: str, missing: int, whole: int) -> Mapping[str, Any]:
        due = 0

        def granted(purse: str) -> None:
            nonlocal due
            due = whole
            self._due[purse] += whole

        try:
            return await self._asking.ask((name,), missing, granted)
        finally:
            self._due[name] -= due
            self._due = +self._due

    def _left(self, name: str) -> int:
        return self._leases.get(name, 0) - self._taken(name)

    def _lower(self, name: str, amount: int) -> None:
        left = self._leases.get(name, 0) - amount
        if left:
            self._leases[name] = left
        else:
            self._leases.pop(name, None)
