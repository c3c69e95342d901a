"""Answered calls become charges: the gateway's journal is drained into invocations and ledger.

Path: metering -> journal -> here -> ledger. Invariant: an answered call is charged exactly once.
The records, their charges and the drained sequence are committed in one durable transaction, and
the journal forgets only afterwards; a process that dies between any two steps repeats what was not
committed, and repeating is harmless because (worker, sequence) and the entry's key are unique.

How far below zero a balance can go: not at all by calls of one gateway, for admission holds a
call's highest price (Rate.hold_rao) before dispatch and a charge never exceeds its hold. Gateways
that do not share their holds can together overdraw by at most the holds that each of them gave out
while the others' calls were not drained yet. Nothing here refuses a charge: the call was answered.
"""

from typing import Protocol

from chutes_core.base.errors import Conflict
from chutes_core.validator.billing.receipts import Sealer
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.money import REVENUE, Entry, Posting, user_credit
from chutes_core.validator.store.database import Store

BATCH = 1_000
KIND = "invocation"


class JournalReader(Protocol):
    """One worker's journal (gateway.journal.Journal)."""

    @property
    def worker(self) -> str:
        """The name under which its sequences are unique."""
        ...

    @property
    def last_sequence(self) -> int:
        """The newest sequence it ever gave; 0 before the first."""
        ...

    def pending(self, after_sequence: int, limit: int) -> list[Invocation]:
        """Return the oldest records after a sequence, in order."""
        ...

    def discard(self, up_to_sequence: int) -> None:
        """Forget records up to a sequence."""
        ...


class Settlement:
    """Drains journals; with a ``sealer`` every batch is signed for receipts."""

    def __init__(self, store: Store, *, batch: int = BATCH, sealer: Sealer | None = None) -> None:
        self._store = store
        self._sealer = sealer
        self._batch = batch

    def drain(self, journal: JournalReader) -> int:
        """Settle everything that is pending and return how many records that were.

        Raises:
            Conflict: ``journal_behind`` where the journal is older than the store (restored from a
                backup, or emptied by hand): its new records would pass for settled ones.
        """
        total = 0
        while True:
            after = self._store.invocations.drained_of(journal.worker)
            if journal.last_sequence < after:
                raise Conflict(
                    "journal_behind",
                    f"the journal of {journal.worker} ends before what was settled from it",
                    hint="restore journal and store together, or give the gateway a new name",
                )
            records = journal.pending(after, self._batch)
            if records:
                self._settle(journal.worker, records)
                after = records[-1].sequence
                total += len(records)
            journal.discard(after)
            if len(records) < self._batch:
                return total

    def _settle(self, worker: str, records: list[Invocation]) -> None:
        with self._store.transaction(durable=True):
            self._store.invocations.insert_many(records)
            if self._sealer is not None:
                self._store.invocations.add_batch(self._sealer.seal(records))
            for record in records:
                entry = charge_entry(record)
                if entry is not None and self._store.ledger.apply(entry):
                    self._store.keys.spend(record.key_id, entry.postings[1].rao)
            for key_id, at_s in _last_used(records).items():
                self._store.keys.touch(key_id, at_s)
            self._store.invocations.set_drained(worker, records[-1].sequence)


def charge_entry(record: Invocation) -> Entry | None:
    """Return the entry that charges a call, or None where it costs nothing."""
    rao = record.charge_rao
    if rao <= 0:
        return None
    return Entry(
        key=f"invocation:{record.invocation_id}",
        kind=KIND,
        at_s=record.started_at_us // 1_000_000,
        postings=(Posting(user_credit(record.user_id), -rao), Posting(REVENUE, rao)),
    )


def _last_used(records: list[Invocation]) -> dict[str, int]:
    """Return key id -> Unix seconds of its last call among the records."""
    used: dict[str, int] = {}
    for record in records:
        at_s = record.started_at_us // 1_000_000
        used[record.key_id] = max(at_s, used.get(record.key_id, 0))
    return used
