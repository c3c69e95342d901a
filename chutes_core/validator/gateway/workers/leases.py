"""How much of each purse every worker may take: the arithmetic of the main process.

A purse is what calls of one kind share: an account's balance, a key's budget (both in rao), an
account's free calls, or an instance's slots. Path: ASK -> `grant`, RETURN ->
`returned`, drained records -> `charged` -> `swap`.

Invariant, for every purse: what workers hold leased, plus what is spent outside of calls and not
yet shown, never exceeds what the newest snapshot says is there, by granting; and what a worker has
open or charged and not yet in that snapshot never exceeds its lease (`purses`). So two workers
together never overspend, however messages are delayed and whoever dies: a dead worker's lease ends
only when its journal is in the ledger and the snapshot shows it (`ended`).
"""

import threading
from collections import defaultdict, deque
from collections.abc import Iterable

from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.snapshot import Snapshot
from chutes_core.validator.domain.spending import free_purse, key_purse
from chutes_core.validator.gateway.holds import Holds, taken_by

MORE_TIMES = 16  # so many times what was asked for is given at most, so that few calls must ask
_SLOTS = "slots:"


def slots_purse(launch_id: str) -> str:
    """Name the purse of an instance's slots."""
    return f"{_SLOTS}{launch_id}"


def launch_of(purse: str) -> str | None:
    """Return whose slots a purse holds; None where it holds money."""
    return purse.removeprefix(_SLOTS) if purse.startswith(_SLOTS) else None


class Leases:
    """Leases by worker and purse; used on one loop, but for `charged` (any thread).

    Args:
        holds: where leases stand beside what is spent outside of calls.
        workers: how many there are; each gets at most its share of what is free beyond its need.
    """

    def __init__(self, holds: Holds, workers: int) -> None:
        self._holds = holds
        self._workers = workers
        self._there: dict[str, int] = {}
        self._leased: dict[str, dict[str, int]] = defaultdict(dict)
        self._charges: dict[str, deque[tuple[int, tuple[str, ...], int]]] = {}
        self._last_charge: dict[str, int] = {}
        self._lock = threading.Lock()

    def swap(self, snapshot: Snapshot) -> None:
        """Count by a new snapshot: what it has taken off is no longer leased."""
        there = {payer.user_id: payer.spendable_rao for payer in snapshot.payers.values()}
        for key in snapshot.keys.values():
            left_rao = key.left_rao()
            if left_rao is not None:
                there[key_purse(key.key_id)] = left_rao
        for payer in snapshot.payers.values():
            if payer.free_calls is not None:
                there[free_purse(payer.user_id)] = payer.free_calls.left
        for views in snapshot.instances.values():
            there |= {slots_purse(view.launch_id): view.concurrency for view in views}
        for worker, sequence in snapshot.drained.items():
            self._take_off(worker, sequence)
        self._holds.drained(0, snapshot.ledger_entry)
        self._there = there

    def grant(self, worker: str, purse: str, need: int) -> int:
        """Lease at least ``need`` of a purse to a worker, or nothing; return how much."""
        free = self._there.get(purse, 0) - self._holds.lease(purse, need)
        if need <= 0 or free < need:
            self._holds.end_lease(purse, need)
            return 0
        more = min((free - need) // (2 * self._workers), MORE_TIMES * need)
        if more > 0 and self._there[purse] - self._holds.lease(purse, more) < more:
            self._holds.end_lease(purse, more)  # a spending came between
            more = 0
        leased = self._leased[worker]
        leased[purse] = leased.get(purse, 0) + need + max(more, 0)
        return need + max(more, 0)

    def free(self, purse: str) -> int:
        """Return how much of a purse nobody holds."""
        return max(0, self._there.get(purse, 0) - self._holds.taken_rao(purse))

    def leased(self, worker: str, purse: str) -> int:
        """Return how much of a purse a worker holds."""
        return self._leased[worker].get(purse, 0)

    def returned(self, worker: str, purse: str, amount: int) -> None:
        """Take back what a worker does not use."""
        leased = self._leased[worker]
        amount = min(amount, leased.get(purse, 0))
        if amount <= 0:
            return
        self._holds.end_lease(purse, amount)
        leased[purse] -= amount
        if not leased[purse]:
            del leased[purse]

    def charged(self, worker: str, records: Iterable[Invocation]) -> None:
        """Note records of a worker's journal that are being settled; they may come again."""
        with self._lock:
            charges = self._charges.setdefault(worker, deque())
            for one in records:
                if one.sequence > self._last_charge.get(worker, 0):
                    self._last_charge[worker] = one.sequence
                    charges.append((one.sequence, *taken_by(one)))

    def ended(self, worker: str, *, settled: bool) -> None:
        """End a dead worker's leases: its slots at once, the money once its journal is settled."""
        for purse, amount in tuple(self._leased[worker].items()):
            if settled or launch_of(purse) is not None:
                self.returned(worker, purse, amount)

    def _take_off(self, worker: str, sequence: int) -> None:
        with self._lock:
            charges, shown = self._charges.get(worker, deque()), []
            while charges and charges[0][0] <= sequence:
                shown.append(charges.popleft())
        for _, purses, rao in shown:
            for purse in purses:
                self.returned(worker, purse, rao)
