"""Money set aside in memory while calls run, so that a balance is never spent twice.

Path: admission opens a hold before dispatch; metering settles it with the charge and the sequence
of its journal record. Invariant: for every account, spendable (of the snapshot) minus open holds
minus charges settled but not yet in the snapshot never goes below zero by admitting a call; and so
for the budget of every key that has one.
"""

from collections import deque
from collections.abc import Iterable

from chutes_core.base.errors import PaymentRequired
from chutes_core.base.units import format_tao
from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import PayerView


class Hold:
    """One call's hold; ends once, by `settle` or `release`.

    ``names`` are the purses that it counts against: the account's, and its key's if that has a
    budget.
    """

    def __init__(self, holds: "Holds", names: tuple[str, ...], rao: int) -> None:
        self._holds = holds
        self._names = names
        self.rao = rao
        self._open = True

    def settle(self, sequence: int, charge_rao: int) -> None:
        """Turn the hold into a charge that counts until the ledger has it."""
        if self._open:
            self._holds._add_settled(self._names, sequence, charge_rao)
        self.release()

    def release(self) -> None:
        """Give the held money back; does nothing after the hold has ended."""
        if self._open:
            self._open = False
            self._holds._close(self._names, self.rao)


class Holds:
    """All open holds and undrained charges of this gateway."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._settled: dict[str, int] = {}
        self._undrained: deque[tuple[int, tuple[str, ...], int]] = deque()

    def open(self, payer: PayerView, rate: Rate, key: ApiKey | None = None) -> Hold:
        """Set one call's money aside.

        Raises:
            PaymentRequired: ``insufficient_balance``, or ``key_budget_spent``.
        """
        rao = 0 if payer.free else rate.hold_rao
        free_rao = payer.spendable_rao - self.taken_rao(payer.user_id)
        if rao > max(free_rao, 0):
            raise PaymentRequired(
                "insufficient_balance",
                f"a call needs {format_tao(rao)} TAO set aside, "
                f"{format_tao(max(free_rao, 0))} TAO are free",
                hint="pay in to your payment address (chutes account), or let running calls end",
                needed_rao=rao,
            )
        names: tuple[str, ...] = (payer.user_id,)
        if key is not None and (left_rao := key.left_rao()) is not None:
            names = (payer.user_id, key_purse(key.key_id))
            self._check_budget(names[1], rao, left_rao)
        for name in names:
            self._held[name] = self._held.get(name, 0) + rao
        return Hold(self, names, rao)

    def taken_rao(self, name: str) -> int:
        """Return what is held and what is charged but not yet in the snapshot's balance.

        Args:
            name: a user id, or `key_purse` of a key.
        """
        return self._held.get(name, 0) + self._settled.get(name, 0)

    def replay(self, invocations: Iterable[Invocation]) -> None:
        """Count the journal's records that a former process left undrained."""
        for one in invocations:
            if one.charged:
                rate = Rate(one.rate_id, one.rao_per_hour, one.hold_rao)
                names = (one.user_id, key_purse(one.key_id))
                self._add_settled(names, one.sequence, rate.charge_rao(one.usage_us))

    def drained(self, sequence: int) -> None:
        """Forget charges up to ``sequence``: the snapshot's balances have them taken off."""
        while self._undrained and self._undrained[0][0] <= sequence:
            _, names, rao = self._undrained.popleft()
            for name in names:
                _subtract(self._settled, name, rao)

    def _check_budget(self, name: str, rao: int, left_rao: int) -> None:
        free_rao = max(0, left_rao - self.taken_rao(name))
        if rao > free_rao:
            raise PaymentRequired(
                "key_budget_spent",
                f"a call needs {format_tao(rao)} TAO set aside, "
                f"this key's budget leaves {format_tao(free_rao)} TAO",
                needed_rao=rao,
            )

    def _add_settled(self, names: tuple[str, ...], sequence: int, rao: int) -> None:
        if rao:
            for name in names:
                self._settled[name] = self._settled.get(name, 0) + rao
            self._undrained.append((sequence, names, rao))

    def _close(self, names: tuple[str, ...], rao: int) -> None:
        for name in names:
            _subtract(self._held, name, rao)


def key_purse(key_id: str) -> str:
    """Name the purse of a key that has a budget."""
    return f"key:{key_id}"


def _subtract(sums: dict[str, int], name: str, rao: int) -> None:
    left = sums.get(name, 0) - rao
    if left:
        sums[name] = left
    else:
        sums.pop(name, None)
