"""Receipts of settled calls: each batch is signed as it is settled, and read back call by call.

Path: settle -> `Sealer` (root, signature) -> store; routes -> `Receipts` -> wire/receipt.
Invariant: a batch's signature is committed with its records, so that every settled call has a
receipt, and what a receipt says is what the store holds: it is made from the rows, not kept beside
them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bittensor_core import Keypair

from chutes_core.base.errors import NotFound
from chutes_core.validator.domain.invocations import Batch, Invocation
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.store.database import Store
from chutes_core.wire.receipt import Receipt, ReceiptBatch, ReceiptCall, path_of, root_of

MAX_RECEIPTS = 100  # of one page
MAX_RECORDS_READ = 10_000  # for one page: each receipt takes the hashes of its whole batch


@dataclass(frozen=True)
class Sealer:
    """Signs batches with the validator's hotkey, for one subnet of one chain."""

    keypair: Keypair
    genesis_hash: str
    netuid: int

    def seal(self, records: Sequence[Invocation]) -> Batch:
        """Return the signed batch of some records of one worker, in their order."""
        first, last = records[0], records[-1]
        head = ReceiptBatch(
            genesis_hash=self.genesis_hash,
            netuid=self.netuid,
            validator_hotkey=self.keypair.ss58_address,
            worker=first.worker,
            first=first.sequence,
            last=last.sequence,
            count=len(records),
            root=root_of(_leaves(records)).hex(),
        )
        return Batch(
            worker=first.worker,
            first=first.sequence,
            last=last.sequence,
            head=head.model_dump_json(),
            signature=head.signed(self.keypair),
        )


class Receipts:
    """Makes receipts from the store; blocks on the disk."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, call: Invocation) -> Receipt:
        """Return a call's receipt.

        Raises:
            NotFound: ``no_receipt``, it was settled before receipts were given.
        """
        batch = self._store.invocations.batch_of(call.worker, call.sequence)
        if batch is None:
            raise NotFound(
                "no_receipt",
                "this call was settled without a receipt",
                hint="calls of older releases have none",
            )
        return self._in(batch, [call])[0]

    def of_launch(self, launch_id: str, after_us: int) -> list[Receipt]:
        """Return a page of receipts of an instance's calls begun after a time, oldest first.

        At most MAX_RECEIPTS, fewer where they lie in many batches. A page never ends between calls
        of one microsecond, so that the last one's time is where the next page begins.
        """
        calls = self._store.invocations.of_launch(launch_id, after_us, MAX_RECEIPTS + 1)
        pages = _whole_moments(calls, MAX_RECEIPTS)
        found: dict[str, Receipt] = {}
        read = 0
        for number, call in enumerate(pages):
            if call.invocation_id in found:
                continue
            batch = self._store.invocations.batch_of(call.worker, call.sequence)
            if batch is None:
                continue
            size = batch.last - batch.first + 1
            if read and read + size > MAX_RECORDS_READ:
                pages = _whole_moments(pages, number)
                break
            read += size
            inside = [one for one in pages if batch.holds(one)]
            found |= {r.call.invocation_id: r for r in self._in(batch, inside)}
        return [found[call.invocation_id] for call in pages if call.invocation_id in found]

    def _in(self, batch: Batch, calls: Sequence[Invocation]) -> list[Receipt]:
        records = self._store.invocations.of_batch(batch)
        leaves, places = _leaves(records), {r.sequence: n for n, r in enumerate(records)}
        head = ReceiptBatch.model_validate_json(batch.head)
        return [
            Receipt(
                batch=head,
                signature=batch.signature,
                position=places[call.sequence],
                path=path_of(leaves, places[call.sequence]),
                call=_shown(call),
            )
            for call in calls
        ]


def _whole_moments(calls: Sequence[Invocation], most: int) -> Sequence[Invocation]:
    """Return the first ``most`` calls, less those of the moment that does not fit wholly."""
    if len(calls) <= most:
        return calls
    beyond_us = calls[most].started_at_us
    whole = [call for call in calls[:most] if call.started_at_us < beyond_us]
    return whole or calls[:most]


def _leaves(records: Sequence[Invocation]) -> list[bytes]:
    return [_shown(record).leaf() for record in records]


def _shown(record: Invocation) -> ReceiptCall:
    rate = Rate(record.rate_id, record.rao_per_hour, record.hold_rao)
    return ReceiptCall(
        sequence=record.sequence,
        invocation_id=record.invocation_id,
        user_id=record.user_id,
        chute_id=record.chute_id,
        launch_id=record.launch_id,
        rate_id=record.rate_id,
        rao_per_hour=record.rao_per_hour,
        hold_rao=record.hold_rao,
        charge_rao=rate.charge_rao(record.usage_us) if record.charged else 0,
        free=record.free,
        started_at_us=record.started_at_us,
        usage_us=record.usage_us,
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        attempts=record.attempts,
        status=record.status,
        outcome=record.outcome,
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
    )
