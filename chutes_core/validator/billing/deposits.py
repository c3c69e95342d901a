"""Transfers to and from deposit addresses become deposits, and the ledger that mirrors the chain.

Path: chain/transfers -> payments.apply -> here, in the transaction that moves the cursor.
Invariants: a transfer is one deposit, once; its lock runs from its own block's time, so a
stranger's dust restarts nothing; `chain:deposits:…` is minus the balance of the address at the
cursor, to the rao, whoever moved what; what leaves is explained by a refund or counts as missing.
"""

from typing import Protocol

from chutes_core.base.clock import Clock
from chutes_core.validator.billing.roles import DepositTerms, held_rao, review_deposits
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.deposits import Deposit, Refund
from chutes_core.validator.domain.money import (
    Entry,
    Posting,
    chain_deposit,
    refund_flow,
    user_deposit,
)
from chutes_core.validator.store.database import Store

KIND = "deposit"


class Place(Protocol):
    """Where an event stands on the chain."""

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
    def rao(self) -> int:
        """How much moved."""
        ...


def key_of(kind: str, place: Place) -> str:
    """Return the idempotency key of an event."""
    return f"{kind}:{place.block_hash}:{place.extrinsic_index}:{place.event_index}"


class Deposits:
    """Developer deposits of accounts."""

    def __init__(self, store: Store, clock: Clock, terms: DepositTerms) -> None:
        self._store = store
        self._clock = clock
        self.terms = terms

    def arrived(
        self, account: Account, place: Place, *, source_ss58: str, block_number: int, at_s: int
    ) -> bool:
        """Keep a transfer to the account's deposit address; False where it is known."""
        key = key_of("deposit", place)
        deposit = Deposit(
            deposit_id=key.removeprefix("deposit:0x"),
            user_id=account.user_id,
            rao=place.rao,
            source_ss58=source_ss58,
            block_number=block_number,
            block_hash=place.block_hash,
            at_s=at_s,
            unlocks_at_s=at_s + self.terms.lock_s,
        )
        entry = Entry(
            key=key,
            kind=KIND,
            at_s=at_s,
            postings=(
                Posting(chain_deposit(account.user_id), -place.rao),
                Posting(user_deposit(account.user_id), place.rao),
            ),
        )
        if not self._store.ledger.apply(entry):
            return False
        self._store.deposits.insert(deposit)
        review_deposits(self._store, self.terms, account.user_id, self._clock.now_s())
        return True

    def left(self, account: Account, place: Place, *, kind: str) -> bool:
        """Note what left the deposit address: a transfer (``out``) or a fee (``fee``)."""
        entry = Entry(
            key=key_of(kind, place),
            kind=f"deposit_{kind}",
            at_s=self._clock.now_s(),
            postings=(
                Posting(chain_deposit(account.user_id), place.rao),
                Posting(refund_flow(account.user_id), -place.rao),
            ),
        )
        new = self._store.ledger.apply(entry)
        if new:
            review_deposits(self._store, self.terms, account.user_id, self._clock.now_s())
        return new

    def of(self, user_id: str) -> tuple[Deposit, ...]:
        """Return an account's deposits, oldest first."""
        return self._store.deposits.of_user(user_id)

    def refunds_of(self, user_id: str) -> tuple[Refund, ...]:
        """Return an account's refunds, newest first."""
        return self._store.refunds.of_user(user_id)

    def held_rao(self, user_id: str) -> int:
        """Return what counts towards the developer role."""
        return held_rao(self._store, user_id)

    def review_all(self) -> None:
        """Apply today's terms to every account, e.g. after the amount was changed."""
        for account in self._store.accounts.all():
            with self._store.transaction():
                review_deposits(self._store, self.terms, account.user_id, self._clock.now_s())
