"""Finalized transfers become credit and deposits: an account's own addresses decide which.

Path: chain Transfer event -> chain/transfers -> here -> ledger. Invariant: a transfer is credited
exactly once, whatever is replayed (its key is block hash, extrinsic and event index), and the
cursor moves in the transaction that holds the credits, by one block at a time. What leaves one of
our addresses (sweeps, refunds, fees) is noted the same way, so the ledger mirrors the chain.
"""

from collections.abc import Sequence
from typing import Protocol

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict
from chutes_core.validator.billing.deposits import Deposits, Place, key_of
from chutes_core.validator.billing.roles import DepositTerms
from chutes_core.validator.domain.money import (
    CHAIN_PAYMENTS,
    SWEPT,
    Entry,
    Posting,
    user_credit,
)
from chutes_core.validator.store.database import Store

CURSOR = "payments"
KIND = "payment"


class Transfer(Place, Protocol):
    """A Balances.Transfer event (chain.transfers.Transfer)."""

    @property
    def source_ss58(self) -> str:
        """Who paid."""
        ...

    @property
    def destination_ss58(self) -> str:
        """Who received it."""
        ...


class Loss(Place, Protocol):
    """A fee or dust that an account lost (chain.transfers.Loss)."""

    @property
    def account_ss58(self) -> str:
        """Who lost it."""
        ...


class Block(Protocol):
    """A finalized block with its transfers (chain.transfers.FinalizedBlock)."""

    @property
    def number(self) -> int:
        """Its height."""
        ...

    @property
    def hash(self) -> str:
        """Its hash."""
        ...

    @property
    def transfers(self) -> Sequence[Transfer]:
        """All transfers in it, in order."""
        ...

    @property
    def losses(self) -> Sequence[Loss]:
        """All fees and dust in it, in order."""
        ...

    @property
    def time_s(self) -> int | None:
        """Its own time in Unix seconds; known where it holds transfers."""
        ...


class Payments:
    """Works finalized blocks off.

    Args:
        store: ledger, deposits and the cursor.
        clock: for entries whose block has no time.
        deposits: takes what concerns deposit addresses; a default without a required amount.
    """

    def __init__(self, store: Store, clock: Clock, deposits: Deposits | None = None) -> None:
        self._store = store
        self._clock = clock
        self._deposits = deposits or Deposits(store, clock, DepositTerms(required_rao=0))

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
            at_s = self._clock.now_s() if block.time_s is None else block.time_s
            credited = sum(self._credit(t, block.number, at_s) for t in block.transfers)
            for transfer in block.transfers:
                self._left(transfer.source_ss58, transfer, "out")
            for loss in block.losses:
                self._left(loss.account_ss58, loss, "fee")
            if last is None or block.number > last:
                self._store.cursors.set(CURSOR, block.number, block_hash=block.hash)
        return credited

    def last_hash(self) -> str | None:
        """Return the hash of the last block that was read, which the next one must name."""
        return self._store.cursors.hash_of(CURSOR)

    def _credit(self, transfer: Transfer, block_number: int, at_s: int) -> bool:
        if transfer.rao <= 0:
            return False
        account = self._store.accounts.by_payment_address(transfer.destination_ss58)
        if account is not None:
            return self._enter(
                key_of("transfer", transfer), KIND, at_s, user_credit(account.user_id), transfer.rao
            )
        account = self._store.accounts.by_deposit_address(transfer.destination_ss58)
        if account is None:
            return False
        return self._deposits.arrived(
            account,
            transfer,
            source_ss58=transfer.source_ss58,
            block_number=block_number,
            at_s=at_s,
        )

    def _left(self, address_ss58: str, place: Place, kind: str) -> None:
        if place.rao <= 0:
            return
        account = self._store.accounts.by_deposit_address(address_ss58)
        if account is not None:
            self._deposits.left(account, place, kind=kind)
        elif self._store.accounts.by_payment_address(address_ss58) is not None:
            key = key_of(kind, place)
            self._enter(key, f"sweep_{kind}", self._clock.now_s(), SWEPT, -place.rao)

    def _enter(self, key: str, kind: str, at_s: int, account: str, rao: int) -> bool:
        """Post between the payment addresses on the chain and an account of ours."""
        postings = (Posting(CHAIN_PAYMENTS, -rao), Posting(account, rao))
        return self._store.ledger.apply(Entry(key=key, kind=kind, at_s=at_s, postings=postings))
