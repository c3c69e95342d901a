"""Money set aside in memory while calls run, so that a balance is never spent twice.

Path: admission opens a hold before dispatch; metering settles it with the charge and the sequence
of its journal record. Invariant: for every account, spendable (of the snapshot) minus open holds
minus charges settled but not yet in the snapshot never goes below zero by admitting a call.
"""

from collections import deque
from collections.abc import Iterable

from chutes_core.base.errors import PaymentRequired
from chutes_core.base.units import format_tao
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import PayerView


class Hold:
    """One call's hold; ends once, by `settle` or `release`."""

    def __init__(self, holds: "Holds", user_id: str, rao: int) -> None:
        self._holds = holds
        self._user_id = user_id
        self.rao = rao
        self._open = True

    def settle(self, sequence: int, charge_rao: int) -> None:
        """Turn the hold into a charge that counts until the ledger has it."""
        if self._open:
            self._holds._add_settled(self._user_id, sequence, charge_rao)
        self.release()

    def release(self) -> None:
        """Give the held money back; does nothing after the hold has ended."""
        if self._open:
            self._open = False
            self._holds._close(self._user_id, self.rao)


class Holds:
    """All open holds and undrained charges of this gateway."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._settled: dict[str, int] = {}
        self._undrained: deque[tuple[int, str, int]] = deque()

    def open(self, payer: PayerView, rate: Rate) -> Hold:
        """Set one call's money aside.

        Raises:
            PaymentRequired: ``insufficient_balance``.
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
        self._held[payer.user_id] = self._held.get(payer.user_id, 0) + rao
        return Hold(self, payer.user_id, rao)

    def taken_rao(self, user_id: str) -> int:
        """Return what is held and what is charged but not yet in the snapshot's balance."""
        return self._held.get(user_id, 0) + self._settled.get(user_id, 0)

    def replay(self, invocations: Iterable[Invocation]) -> None:
        """Count the journal's records that a former process left undrained."""
        for one in invocations:
            if one.charged:
                rate = Rate(one.rate_id, one.rao_per_hour, one.hold_rao)
                self._add_settled(one.user_id, one.sequence, rate.charge_rao(one.usage_us))

    def drained(self, sequence: int) -> None:
        """Forget charges up to ``sequence``: the snapshot's balances have them taken off."""
        while self._undrained and self._undrained[0][0] <= sequence:
            _, user_id, rao = self._undrained.popleft()
            _subtract(self._settled, user_id, rao)

    def _add_settled(self, user_id: str, sequence: int, rao: int) -> None:
        if rao:
            self._settled[user_id] = self._settled.get(user_id, 0) + rao
            self._undrained.append((sequence, user_id, rao))

    def _close(self, user_id: str, rao: int) -> None:
        _subtract(self._held, user_id, rao)


def _subtract(sums: dict[str, int], user_id: str, rao: int) -> None:
    left = sums.get(user_id, 0) - rao
    if left:
        sums[user_id] = left
    else:
        sums.pop(user_id, None)
