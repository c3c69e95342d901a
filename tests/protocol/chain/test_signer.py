"""Deposits and their refunds on a devnet, from transfer to transfer, with deaths in between."""

import os
import time

import bittensor as bt
import pytest
from bittensor_core import Keypair

from chutes_core.base.clock import ManualClock, SystemClock
from chutes_core.base.errors import Forbidden
from chutes_core.chain.addresses import derive
from chutes_core.chain.client import ChainClient
from chutes_core.chain.outbox import STEPS
from chutes_core.chain.transfers import TransferWatcher
from chutes_core.validator.billing.deposits import Deposits
from chutes_core.validator.billing.payments import Payments
from chutes_core.validator.billing.refunds import Refunds
from chutes_core.validator.billing.roles import DepositTerms
from chutes_core.validator.domain.accounts import DEVELOPER, Account
from chutes_core.validator.domain.deposits import RefundState
from chutes_core.validator.domain.money import chain_deposit, refund_flow
from chutes_core.validator.signer.desk import Desk
from chutes_core.validator.signer.service import Signer, SignerParts, child_of
from chutes_core.validator.signer.spool import Spool
from chutes_core.validator.store.database import Store

RAO = 10**9
SECRET = "//Treasury//deposit"
TREASURY = Keypair.create_from_uri(SECRET).ss58_address
TERMS = DepositTerms(required_rao=RAO, enforced=True, lock_s=0)


class DiedError(BaseException):
    """Stands for the end of the process."""


class House:
    """Validator and signer over one devnet; each can be restarted."""

    def __init__(self, devnet, folder):
        self.devnet = devnet
        self.folder = folder
        self.clock = SystemClock()
        self.watcher = TransferWatcher(devnet.url)
        self.signer_store = self.store = self.chain = None
        self.cap_rao = 100 * RAO
        self.open()
        self.payments.begin(self.watcher.finalized_number())

    def open(self, reached=None):
        self.close()
        self.store = Store(self.folder / "validator" / "v.sqlite")
        deposits = Deposits(self.store, self.clock, TERMS)
        self.payments = Payments(self.store, self.clock, deposits)
        self.refunds = Refunds(self.store, self.clock, TERMS, fee_rao=lambda: 200_000)
        spool = self.folder / "spool"
        self.desk = Desk(self.refunds, spool, signer_uid=os.getuid())
        self.signer_store = Store(self.folder / "signer" / "s.sqlite")
        self.chain = ChainClient.connect(self.devnet.url, 0)
        reports = Spool(spool / "reports", owner_uid=os.getuid())
        reports.prepare()
        parts = SignerParts(
            store=self.signer_store,
            chain=self.chain,
            outbox=self.chain.use_outbox(self.signer_store.outbox, reached=reached),
            orders=Spool(spool / "orders", owner_uid=os.getuid()),
            reports=reports,
            clock=self.clock,
        )
        self.signer = Signer(
            parts, treasury_ss58=TREASURY, child=child_of(SECRET), cap_rao=self.cap_rao
        )

    def close(self):
        for part in (self.chain, self.store, self.signer_store):
            if part is not None:
                part.close()

    def account(self, name, base):
        """Open an account whose number nobody used on this chain."""
        self.store._connection.execute("PRAGMA foreign_keys=ON")
        cold = Keypair.create_from_mnemonic(Keypair.generate_mnemonic()).ss58_address
        number = base
        account = Account(
            *(name, number, name, f"hot-{name}", cold, f"pay-{name}"),
            *(derive(TREASURY, number), "0", 1),
        )
        self.store.accounts.create(lambda _: account)
        self.store.accounts.prove_coldkey(name, cold, "signature")
        return self.store.accounts.get(name)

    def catch_up(self):
        last = self.store.cursors.get("payments")
        for block in self.watcher.blocks_after(last):
            self.payments.apply(block)

    def settle(self, refund_id, timeout_s=90):
        """Let validator and signer work until a refund has ended and all blocks are read."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.desk.run_once()
            self.signer.run_once()
            self.catch_up()
            refund = self.store.refunds.get(refund_id)
            if refund.state in (RefundState.FINALIZED, RefundState.FAILED):
                self.catch_up()
                return refund
            time.sleep(0.05)
        pytest.fail(f"the refund is still {refund}")

    def pay(self, key, to, rao):
        call = bt.calls.Balances.transfer_keep_alive(dest=to, value=rao)
        with ChainClient.connect(self.devnet.url, 0) as chain:
            chain.call(key, call, "transfer")
        self.catch_up()


@pytest.fixture
def house(devnet, tmp_path):
    built = House(devnet, tmp_path)
    yield built
    built.watcher.close()
    built.close()


def check_equal(house, account):
    """The ledger has of the address what the chain has, to the rao, and nothing unexplained."""
    ledger = house.store.ledger
    on_chain = house.chain.balance_rao(account.deposit_address)
    assert -ledger.balance(chain_deposit(account.user_id)) == on_chain
    assert ledger.balance(refund_flow(account.user_id)) == 0
    assert ledger.total() == 0


@pytest.mark.parametrize(("number", "step"), list(enumerate((*STEPS, "write", "take"), 1_000)))
def test_a_refund_is_paid_once_wherever_a_process_ends(house, key, monkeypatch, number, step):
    """Signer and validator die after each step; the deposit comes back once, less the fee."""
    account = house.account(f"u{number}", number)
    house.pay(key("//Alice"), account.deposit_address, 2 * RAO)
    assert DEVELOPER in house.store.accounts.get(account.user_id).roles
    refund = house.refunds.request(account)
    assert DEVELOPER not in house.store.accounts.get(account.user_id).roles

    def die(*_, **__):
        raise DiedError

    def reached(at):
        if at == step:
            raise DiedError

    with monkeypatch.context() as patch:
        house.open(reached)
        if step == "write":
            patch.setattr(Spool, "keep_only", die)
        if step == "take":
            patch.setattr(type(house.store.ledger), "apply", die)
        with pytest.raises(DiedError):
            house.settle(refund.refund_id)
    house.open()
    done = house.settle(refund.refund_id)
    assert done.state is RefundState.FINALIZED
    rest_rao = 2 * RAO - done.paid_rao - done.fee_rao
    assert 500 <= rest_rao < 500 + done.fee_rao // 50
    assert house.chain.balance_rao(account.coldkey_ss58) == done.paid_rao
    check_equal(house, account)


def test_the_daily_cap_holds_and_says_so(house, key):
    """Above the cap a refund waits with its reason; the next day it is paid."""
    house.cap_rao = RAO + RAO // 2
    start_s = house.clock.now_s()
    house.clock = ManualClock(start_s)
    house.open()
    refunds = []
    for number in (2_000, 2_001):
        account = house.account(f"u{number}", number)
        house.pay(key("//Alice"), account.deposit_address, RAO)
        house.clock.advance(60)
        refunds.append(house.refunds.request(account).refund_id)
    house.desk.run_once()
    house.signer.run_once()
    house.desk.run_once()
    waiting = [i for i in refunds if house.store.refunds.get(i).reason == "daily_cap"]
    assert len(waiting) == 1
    assert house.store.refunds.get(waiting[0]).state is RefundState.REQUESTED
    (first,) = set(refunds) - set(waiting)
    assert house.settle(first).state is RefundState.FINALIZED
    house.clock.advance(86_400)
    house.chain._outbox._clock = house.clock
    assert house.settle(waiting[0]).state is RefundState.FINALIZED


def test_an_order_for_a_wrong_address_is_refused(house, key):
    """The signer derives the address itself; what the validator says is not enough."""
    account = house.account("u3000", 3_000)
    house.pay(key("//Alice"), account.deposit_address, RAO)
    refund = house.refunds.request(account)
    house.desk.run_once()
    path = house.folder / "spool" / "orders" / f"{refund.refund_id}.json"
    path.write_text(path.read_text().replace('"number":3000', '"number":3001'))
    house.signer.run_once()
    (report,) = Spool(house.folder / "spool" / "reports", owner_uid=os.getuid()).reports()
    assert (report.outcome, report.reason) == ("failed", "wrong_address")
    assert house.signer_store.outbox.all() == ()


def test_only_the_validators_own_files_count(house, key):
    """What another user owns or others may write to stops the pass."""
    account = house.account("u4000", 4_000)
    house.pay(key("//Alice"), account.deposit_address, RAO)
    house.refunds.request(account)
    house.desk.run_once()
    orders = house.folder / "spool" / "orders"
    with pytest.raises(Forbidden, match="spool_not_private"):
        Spool(orders, owner_uid=os.getuid() + 1).orders()
    next(orders.iterdir()).chmod(0o666)
    with pytest.raises(Forbidden, match="spool_not_private"):
        house.signer.run_once()
    orders.chmod(0o777)
    with pytest.raises(Forbidden, match="spool_not_private"):
        house.signer.run_once()
