"""Finalized transfers become credit: each account has its own address, so the destination decides.

Path: chain Transfer event -> chain/transfers -> here -> ledger. Invariant: a transfer is credited
exactly once, whatever is replayed (its key is block hash, extrinsic and event index), and the
cursor moves in the transaction that holds the credits, by one block at a time.
"""

from collections.abc import Sequence
from typing import Protocol

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.money import CHAIN_PAYMENTS, Entry, Posting, user_credit
from chutes_core.validator.store.database import Store

CURSOR = "payments"
KIND = "payment"


class Transfer(Protocol):
    """A Balances.Transfer event (chain.transfers.Transfer)."""

    @property
    def block_hash(self) -> str:
        """Hash of its block."""
        ...

    @property
    def extrinsic_index(self) -> int:
        """Index of the extrinsic in the block."""
        ...

    @property
    def event_index(self) -> int:
        """Index of the event in the block."""
        ...

    @property
    def destination_ss58(self) -> str:
        """Who received it."""
        ...

    @property
    def rao(self) -> int:
        """How much."""
        ...


class Block(Protocol):
    """A finalized block with its transfers (chain.transfers.FinalizedBlock)."""

    @property
    def number(self) -> int:
        """Its height."""
        ...

    @property
    def transfers(self) -> Sequence[Transfer]:
        """All transfers in it, in order."""
        ...


class Payments:
    """Credits transfers to payment addresses."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def begin(self, number: int) -> int:
        """Return the last block that was read; before the first it becomes ``number``."""
        with self._store.transaction(durable=True):
            stored = self._store.cursors.get(CURSOR)
            if stored is None:
                self._store.cursors.set(CURSOR, number)
                return number
        return stored

    def apply(self, block: Block) -> int:
        """Credit a finalized block's transfers and return how many were new.

        A block that was read before changes nothing.

        Raises:
            Conflict: ``block_skipped`` where the block does not follow the last one.
        """
        with self._store.transaction(durable=True):
            last = self._store.cursors.get(CURSOR)
            if last is not None and block.number > last + 1:
                raise Conflict(
                    "block_skipped",
                    f"block {block.number} came after block {last}",
                    hint="payments between them would be lost; read on from the cursor",
                )
            credited = sum(self._credit(transfer) for transfer in block.transfers)
            if last is None or block.number > last:
                self._store.cursors.set(CURSOR, block.number)
        return credited

    def _credit(self, transfer: Transfer) -> bool:
        account = self._store.accounts.by_payment_address(transfer.destination_ss58)
        if account is None or transfer.rao <= 0:
            return False
        return self._store.ledger.apply(
            Entry(
                key=f"transfer:{transfer.block_hash}:{transfer.extrinsic_index}"
                f":{transfer.event_index}",
                kind=KIND,
                at_s=self._clock.now_s(),
                postings=(
                    Posting(CHAIN_PAYMENTS, -transfer.rao),
                    Posting(user_credit(account.user_id), transfer.rao),
                ),
            )
        )
