"""Money set aside in memory while calls run, so that a balance is never spent twice.

Path: admission opens a hold before dispatch; metering settles it with the charge and the sequence
of its journal record. Whatever takes credit outside of a call (domain/spending) holds it here too.
Invariant: for every account, the ledger's balance minus open holds, charges not yet in the ledger
and spendings not yet written never goes below zero by admitting a call or by a spending; and so for
the budget of every key that has one. Calls run on one event loop, spendings in any thread: each
look at the sums and the change that follows from it happen under one lock.
"""

import threading
from collections import deque
from collections.abc import Iterable
from datetime import datetime, timezone
from types import TracebackType

from typing_extensions import Self

from chutes_core.base.errors import PaymentRequired
from chutes_core.base.units import format_tao
from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.invocations import CHARGED, Invocation, Outcome
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import FreeCalls, PayerView
from chutes_core.validator.domain.spending import free_purse, key_purse


class Hold:
    """One call's hold; ends once, by `settle` or `release`; ``is_open`` until then.

    ``names`` are the purses that it counts against: the account's, and its key's if that has a
    budget; or that of the account's free calls, where one is held instead of money. ``paid`` says
    that the call costs money although its payer has free calls.
    """

    __slots__ = ("_counted", "_holds", "_names", "_taken", "is_open", "paid", "rao")

    def __init__(
        self,
        holds: "Holds",
        names: tuple[str, ...],
        rao: int,
        paid: bool = False,
        counted: bool = False,
    ) -> None:
        self._holds = holds
        self._names = names
        self._taken = 1 if counted else rao
        self._counted = counted
        self.rao = rao
        self.paid = paid
        self.is_open = True

    def cover(self, rate: Rate) -> None:
        """Note by which rate the call is paid: what is held covers that of each of its choices."""
        if not self._counted:
            self.rao = min(self._taken, rate.hold_rao)

    def settle(self, sequence: int, charge_rao: int, outcome: Outcome = "ok") -> None:
        """Turn the hold into a charge, or a counted call, until the store has it."""
        if self.is_open:
            taken = int(outcome in CHARGED) if self._counted else charge_rao
            self.is_open = False
            self._holds._settle(self._names, self._taken, sequence, taken)

    def release(self) -> None:
        """Give the held money back; does nothing after the hold has ended."""
        if self.is_open:
            self.is_open = False
            self._holds._close(self._names, self._taken)


class Spending:
    """Money that one write outside of a call takes: held until a snapshot shows its entry."""

    def __init__(self, holds: "Holds") -> None:
        self._holds = holds
        self._held: list[tuple[str, int]] = []
        self._entry_id: int | None = None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def hold(self, purse: str, rao: int) -> int:
        """Set money aside, and return what others hold of the same purse at this moment."""
        taken_rao = self._holds._add_spending(purse, rao)
        self._held.append((purse, rao))
        return taken_rao

    def written(self, entry_id: int) -> None:
        """Name the entry that takes the money."""
        self._entry_id = entry_id

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the snapshot that shows the entry; without one the money is free at once."""
        entry_id = self._entry_id if kind is None else None
        self._holds._end_spending(self._held, entry_id)


class Holds:
    """All open holds and undrained charges of this gateway."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._settled: dict[str, int] = {}
        self._undrained: deque[tuple[int, tuple[str, ...], int]] = deque()
        self._unshown: list[tuple[int, list[tuple[str, int]]]] = []
        self._shown_entry = 0
        self._lock = threading.Lock()

    def open(self, payer: PayerView, rate: Rate, key: ApiKey | None = None) -> Hold:
        """Set one call's money aside, or one of its payer's free calls while any is left.

        Raises:
            PaymentRequired: ``insufficient_balance`` (``free_calls_spent`` where free calls were),
                or ``key_budget_spent``.
        """
        quota = payer.free_calls if payer.free else None
        if quota is not None:
            free_call = self._open_free(payer, quota)
            if free_call is not None:
                return free_call
        rao = 0 if payer.free and quota is None else rate.hold_rao
        user_id, held = payer.user_id, self._held
        names: tuple[str, ...] = (user_id,)
        left_rao = None if key is None or key.budget_rao is None else key.left_rao()
        with self._lock:
            free_rao = self._room(user_id, payer.spendable_rao, rao)
            if rao > free_rao:
                _check_balance(rao, free_rao, quota)
            if key is not None and left_rao is not None:
                names = (user_id, key_purse(key.key_id))
                _check_budget(rao, self._room(names[1], left_rao, rao))
                held[names[1]] = held.get(names[1], 0) + rao
            held[user_id] = held.get(user_id, 0) + rao
        return Hold(self, names, rao, quota is not None)

    async def obtain(self, payer: PayerView, rate: Rate, key: ApiKey | None = None) -> Hold:
        """Set one call's money aside, as `open` does; in a worker this may ask for more first."""
        return self.open(payer, rate, key)

    def lease(self, name: str, amount: int) -> int:
        """Set a worker's lease aside; return what others hold of the purse at this moment."""
        return self._add_spending(name, amount)

    def end_lease(self, name: str, amount: int) -> None:
        """Take a lease, or a part of it, back."""
        self._close((name,), amount)

    def spending(self) -> Spending:
        """Return a new spending, to be used as a context manager in any thread."""
        return Spending(self)

    def taken_rao(self, name: str) -> int:
        """Return what is held, and what is charged or spent but not yet in the snapshot's balance.

        Args:
            name: a user id, or `key_purse` of a key.
        """
        with self._lock:
            return self._taken(name)

    def replay(self, invocations: Iterable[Invocation]) -> None:
        """Count the journal's records that a former process left undrained."""
        for one in invocations:
            names, amount = taken_by(one)
            self._add_settled(names, one.sequence, amount)

    def drained(self, sequence: int, entry_id: int = 0) -> None:
        """Forget what a new snapshot's balances have taken off.

        Args:
            sequence: of the newest charge that is in them.
            entry_id: of the newest entry of the ledger that is in them.
        """
        with self._lock:
            while self._undrained and self._undrained[0][0] <= sequence:
                _, names, rao = self._undrained.popleft()
                for name in names:
                    self._show(name, rao)
            self._shown_entry = max(self._shown_entry, entry_id)
            waiting, self._unshown = self._unshown, []
            for entry, held in waiting:
                self._free_or_wait(held, entry)

    def _open_free(self, payer: PayerView, quota: FreeCalls) -> Hold | None:
        """Hold one free call; None where all of the day's are used or held."""
        name = free_purse(payer.user_id)
        with self._lock:
            if self._room(name, quota.left, 1) < 1:
                return None
            self._held[name] = self._held.get(name, 0) + 1
        return Hold(self, (name,), 0, counted=True)

    def _room(self, name: str, there: int, need: int) -> int:
        """Return how much of a purse is free; a worker counts by its lease instead."""
        del need
        return there - self._held.get(name, 0) - self._settled.get(name, 0)

    def _show(self, name: str, amount: int) -> None:
        """Forget what a new snapshot has taken off."""
        _subtract(self._settled, name, amount)

    def _taken(self, name: str) -> int:
        return self._held.get(name, 0) + self._settled.get(name, 0)

    def _add_settled(self, names: tuple[str, ...], sequence: int, rao: int) -> None:
        if rao:
            with self._lock:
                for name in names:
                    self._settled[name] = self._settled.get(name, 0) + rao
                self._undrained.append((sequence, names, rao))

    def _settle(self, names: tuple[str, ...], held_rao: int, sequence: int, rao: int) -> None:
        """End a hold, and count what came of it: nobody sees the one without the other."""
        with self._lock:
            if rao:
                settled = self._settled
                for name in names:
                    settled[name] = settled.get(name, 0) + rao
                self._undrained.append((sequence, names, rao))
            for name in names:
                _subtract(self._held, name, held_rao)

    def _close(self, names: tuple[str, ...], rao: int) -> None:
        with self._lock:
            for name in names:
                _subtract(self._held, name, rao)

    def _add_spending(self, purse: str, rao: int) -> int:
        with self._lock:
            taken_rao = self._taken(purse)
            self._held[purse] = self._held.get(purse, 0) + rao
            return taken_rao

    def _end_spending(self, held: list[tuple[str, int]], entry_id: int | None) -> None:
        with self._lock:
            self._free_or_wait(held, self._shown_entry if entry_id is None else entry_id)

    def _free_or_wait(self, held: list[tuple[str, int]], entry_id: int) -> None:
        if entry_id > self._shown_entry:
            self._unshown.append((entry_id, held))
            return
        for name, rao in held:
            _subtract(self._held, name, rao)


def taken_by(one: Invocation) -> tuple[tuple[str, ...], int]:
    """Return from which purses a recorded call takes how much."""
    if one.charged:
        rate = Rate(one.rate_id, one.rao_per_hour, one.hold_rao)
        return (one.user_id, key_purse(one.key_id)), rate.charge_rao(one.usage_us)
    return (free_purse(one.user_id),), int(one.free and one.outcome in CHARGED)


def _check_balance(rao: int, free_rao: int, quota: FreeCalls | None) -> None:
    if rao > max(free_rao, 0):
        if quota is not None:
            raise _free_calls_spent(quota, rao)
        raise PaymentRequired(
            "insufficient_balance",
            f"a call needs {format_tao(rao)} TAO set aside, "
            f"{format_tao(max(free_rao, 0))} TAO are free",
            hint="pay in to your payment address (chutes account), or let running calls end",
            needed_rao=rao,
        )


def _free_calls_spent(quota: FreeCalls, rao: int) -> PaymentRequired:
    until = datetime.fromtimestamp(quota.until_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return PaymentRequired(
        "free_calls_spent",
        f"the {quota.per_day} free calls of this day are used; new ones come at {until}",
        hint=f"wait, or pay in to your payment address: a call holds {format_tao(rao)} TAO",
        needed_rao=rao,
    )


def _check_budget(rao: int, free_rao: int) -> None:
    if rao > max(free_rao, 0):
        raise PaymentRequired(
            "key_budget_spent",
            f"a call needs {format_tao(rao)} TAO set aside, "
            f"this key's budget leaves {format_tao(max(free_rao, 0))} TAO",
            needed_rao=rao,
        )


def _subtract(sums: dict[str, int], name: str, rao: int) -> None:
    left = sums.get(name, 0) - rao
    if left:
        sums[name] = left
    else:
        sums.pop(name, None)
