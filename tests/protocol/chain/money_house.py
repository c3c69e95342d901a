"""The validator's money and the signer over one devnet, as the processes wire them, for tests.

`House` is what survives of them on disk, plus what runs now; `open` is a restart. `round` is one
pass of every loop, each as forgiving as the real one: what a loop raises is noted, and it goes on.
"""

import os
import time
from collections import Counter
from dataclasses import dataclass

import bittensor as bt
from bittensor_core import Keypair

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import ChutesError
from chutes_core.chain.addresses import derive
from chutes_core.chain.client import ChainClient, composed
from chutes_core.chain.connection import Patience
from chutes_core.chain.extrinsics import sign, transmit
from chutes_core.chain.intents import OutboxState
from chutes_core.chain.transfers import TransferWatcher
from chutes_core.validator.billing.deposits import Deposits
from chutes_core.validator.billing.payments import Payments
from chutes_core.validator.billing.refunds import Refunds
from chutes_core.validator.billing.roles import DepositTerms
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.deposits import RefundState
from chutes_core.validator.domain.money import (
    CHAIN_PAYMENTS,
    chain_deposit,
    refund_flow,
    user_credit,
    user_deposit,
)
from chutes_core.validator.loops import credit_new_blocks
from chutes_core.validator.signer.desk import Desk
from chutes_core.validator.signer.service import Signer, SignerParts, child_of
from chutes_core.validator.signer.spool import Spool
from chutes_core.validator.store.database import Store
from scripts import sweep as sweeping

RAO = 10**9
DEPOSIT_SECRET = "//Treasury//deposit"
PAYMENT_SECRET = "//Treasury//payment"
_TREASURY_KEY = Keypair.create_from_uri(DEPOSIT_SECRET)
DEPOSIT_TREASURY = str(_TREASURY_KEY.ss58_address)
PAYMENT_TREASURY = str(Keypair.create_from_uri(PAYMENT_SECRET).ss58_address)
TERMS = DepositTerms(required_rao=RAO, enforced=True, lock_s=0)
ENDED = (RefundState.FINALIZED, RefundState.FAILED)
HASTE = Patience(
    call_timeout_s=8.0,
    finality_timeout_s=0.0,  # a sweep looks once and is called again
    attempts=2,
    first_backoff_s=0.05,
    max_backoff_s=0.1,
)


def stranger():
    """Return an address that nobody used before."""
    return Keypair.create_from_mnemonic(Keypair.generate_mnemonic()).ss58_address


@dataclass(frozen=True)
class Noted:
    """What a loop raised."""

    loop: str
    code: str


class House:
    """Validator and signer over one devnet; each can be restarted.

    Args:
        url: of the node.
        folder: of everything on disk.
        watcher: kept over restarts, since opening one takes seconds; None opens one.
        archive_url: of a node that forgets nothing.
        numbers: of the accounts; nobody else uses them on this chain.
        till: where sweeps go.
    """

    def __init__(
        self, url, folder, *, numbers, watcher=None, archive_url=None, clock=None, till=None
    ):
        self.url = url
        self.folder = folder
        self.numbers = numbers
        self.store_path = folder / "validator" / "v.sqlite"
        self.archive_url = archive_url
        self.clock = clock or SystemClock()
        self.watcher = watcher or TransferWatcher(url, archive_url=archive_url)
        self.till = till or stranger()
        self.noted = []
        self.sweeps = True
        self._refund_id = ""
        self.store = self.signer_store = self.sweep_store = self.chain = None
        self.open()

    def open(self, reached=None):
        """Open everything anew, as a restart of validator, signer and sweep does."""
        self.close()
        self.store = Store(self.store_path)
        deposits = Deposits(self.store, self.clock, TERMS)
        self.payments = Payments(self.store, self.clock, deposits)
        self.refunds = Refunds(self.store, self.clock, TERMS, fee_rao=self._quote)
        spool = self.folder / "spool"
        self.desk = Desk(self.refunds, spool, signer_uid=os.getuid())
        self.signer_store = Store(self.folder / "signer" / "s.sqlite")
        self.chain = ChainClient.connect(self.url, 0, patience=HASTE)
        reports = Spool(spool / "reports", owner_uid=os.getuid())
        reports.prepare()
        parts = SignerParts(
            store=self.signer_store,
            chain=self.chain,
            outbox=self.chain.use_outbox(
                self.signer_store.outbox, archive_url=self.archive_url, reached=reached
            ),
            orders=Spool(spool / "orders", owner_uid=os.getuid()),
            reports=reports,
            clock=self.clock,
        )
        self.signer = Signer(
            parts,
            treasury_ss58=DEPOSIT_TREASURY,
            child=child_of(DEPOSIT_SECRET),
            cap_rao=10_000 * RAO,
        )
        self.sweep_store = Store(self.folder / "sweep" / "sweep.sqlite")
        self.sweeper = ChainClient.connect(self.url, 0, patience=HASTE)
        self.sweep_outbox = self.sweeper.use_outbox(
            self.sweep_store.outbox, archive_url=self.archive_url
        )

    def close(self):
        """Close everything but the watcher."""
        for part in (self.chain, self.store, self.signer_store, self.sweep_store):
            if part is not None:
                part.close()
        if self.chain is not None:
            self.sweeper.close()

    def move_in(self):
        """Open the accounts and begin to read the chain at its head; twice does nothing more."""
        known = {account.number for account in self.store.accounts.all()}
        for number in self.numbers:
            if number not in known:
                self._open_account(number)
        self.payments.begin(self.watcher.finalized_number())

    def _open_account(self, number):
        name = f"user-{number}"
        account = Account(
            *(name, number, name, f"hot-{name}", stranger()),
            *(derive(PAYMENT_TREASURY, number), derive(DEPOSIT_TREASURY, number), "0", 1),
        )
        with self.store.transaction(durable=True):
            self.store.accounts.create(lambda _: account)
            self.store.accounts.prove_coldkey(name, account.coldkey_ss58, "signature")

    @property
    def account(self):
        """The first account, as it is stored now."""
        return self.accounts[0]

    @property
    def accounts(self):
        """Every account, as it is stored now."""
        return tuple(self.store.accounts.all())

    @property
    def addresses(self):
        """Every address of ours."""
        pairs = ((a.payment_address, a.deposit_address) for a in self.accounts)
        return frozenset(address for pair in pairs for address in pair)

    def ask_back(self):
        """Ask everything back that is unlocked."""
        self._refund_id = self.refunds.request(self.account).refund_id

    def refund(self):
        """Return what was asked for last, as it stands now, or None."""
        return self.store.refunds.get(self._refund_id)

    def round(self):
        """Let every loop do one pass."""
        self._pass("payments", lambda: credit_new_blocks(self.payments, self.watcher))
        self._pass("refunds", self.desk.run_once)
        self._pass("signer", self.signer.run_once)
        if self.sweeps:
            self._pass("sweep", self._sweep)

    def run_until(self, done, what, *, before_round=None, timeout_s=300):
        """Do rounds until ``done``; a time limit that no healthy run comes near.

        It begins anew with each block that is caught up with of those that were there at first:
        on a busy machine there may be many.
        """
        head, cursor, rounds = self._head(), self.cursor, 0
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, f"no {what}: {self._standing(rounds)}"
            if before_round is not None:
                before_round()
            self.round()
            rounds += 1
            if cursor != self.cursor and (head is None or (cursor or 0) < head):
                cursor, head = self.cursor, self._head() if head is None else head
                deadline = time.monotonic() + timeout_s

    def _head(self):
        try:
            return self.watcher.finalized_number()
        except ChutesError:
            return None

    def _standing(self, rounds):
        """Say where everything stands, for whoever reads why a wait was in vain."""
        under_way = [(item.intent_id, item.state.value) for item in self.under_way()]
        return (
            f"{rounds} rounds, cursor {self.cursor}, finalized head {self._head()},"
            f" under way {under_way}, raised {Counter(self.noted)}, last {self.noted[-6:]}"
        )

    def codes(self, loop=None):
        """Return the codes that loops have raised so far."""
        return {noted.code for noted in self.noted if loop in (None, noted.loop)}

    def swept(self):
        """Return what was swept, each transfer once."""
        items = self.sweep_store.outbox.all()
        return [item for item in items if item.state is OutboxState.FINALIZED]

    def ended(self):
        """Tell whether the newest refund has ended."""
        refund = self.refund()
        return refund is not None and refund.state in ENDED

    def at_rest(self):
        """Tell whether nothing is under way and every finalized block was read."""
        try:
            return not self.under_way() and self.watcher.finalized_number() == self.cursor
        except ChutesError:
            return False

    def under_way(self):
        """Return every extrinsic that is in flight."""
        return (*self.signer_store.outbox.open(), *self.sweep_store.outbox.open())

    @property
    def cursor(self):
        """The last block that was worked off."""
        return self.store.cursors.get("payments")

    def check(self, *, paid_in, deposited):
        """Compare ledger, outboxes and chain for the only account, to the rao.

        Args:
            paid_in: rao that came to the payment address.
            deposited: rao that came to the deposit address.
        """
        self.check_all({self.account.user_id: (paid_in, deposited)})

    def check_all(self, came):
        """Compare ledger, outboxes and chain, to the rao; ``came``: user -> (paid, deposited)."""
        ledger = self.store.ledger
        assert ledger.total() == 0
        assert ledger.disagreements() == ()
        for account in self.accounts:
            self._check_account(account, *came[account.user_id])
        on_payment = sum(self.chain.balance_rao(a.payment_address) for a in self.accounts)
        assert -ledger.balance(CHAIN_PAYMENTS) == on_payment
        assert self.chain.balance_rao(self.till) == sum(i.amount_rao for i in self.swept())
        self._check_paid_once()

    def _check_account(self, account, paid_in, deposited):
        ledger, user = self.store.ledger, account.user_id
        assert ledger.balance(user_credit(user)) == paid_in
        assert sum(deposit.rao for deposit in self.store.deposits.of_user(user)) == deposited
        on_deposit = self.chain.balance_rao(account.deposit_address)
        assert -ledger.balance(chain_deposit(user)) == on_deposit
        refunds = self.store.refunds.of_user(user)
        paid = [one for one in refunds if one.state is RefundState.FINALIZED]
        assert self.chain.balance_rao(account.coldkey_ss58) == sum(r.paid_rao for r in paid)
        if all(refund.state in ENDED for refund in refunds):
            assert ledger.balance(refund_flow(user)) == 0
            assert ledger.balance(user_deposit(user)) == deposited - sum(r.amount_rao for r in paid)

    def _check_paid_once(self):
        refunds = [r for a in self.accounts for r in self.store.refunds.of_user(a.user_id)]
        done = [i for i in self.signer_store.outbox.all() if i.state is OutboxState.FINALIZED]
        names = [item.intent_id for item in done]
        assert len(names) == len(set(names)), "a refund was paid twice"
        paid = {f"refund:{r.refund_id}" for r in refunds if r.state is RefundState.FINALIZED}
        assert set(names) >= paid

    def _sweep(self):
        child = child_of(PAYMENT_SECRET)
        for number in self.numbers:
            sweeping.sweep(
                *(self.sweeper, self.sweep_outbox, self.sweep_store, child, self.till),
                *(number, RAO // 100),
            )

    def _quote(self):
        return self.chain.transfer_fee_rao(_TREASURY_KEY, self.till, RAO)

    def _pass(self, loop, call):
        try:
            call()
        except ChutesError as error:
            self.noted.append(Noted(loop, error.code))


def send(url, to, rao, *, payer="//Alice"):
    """Sign and send a transfer of a development key; it may be in no block yet."""
    call = bt.calls.Balances.transfer_keep_alive(dest=to, value=rao)
    key = Keypair.create_from_uri(payer)
    with ChainClient.connect(url, 0) as chain:
        connection = chain._connection
        signed = connection.read(lambda s: sign(s, composed(call), key), "send")
        assert transmit(connection, signed, key, "send") is None
