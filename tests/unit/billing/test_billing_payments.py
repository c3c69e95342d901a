from dataclasses import dataclass

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict
from chutes_core.validator.billing.ledger import Ledger
from chutes_core.validator.billing.payments import Payments
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.money import CHAIN_PAYMENTS
from chutes_core.validator.store.database import Store


@dataclass(frozen=True)
class FakeTransfer:
    block_hash: str
    extrinsic_index: int
    event_index: int
    destination_ss58: str
    rao: int
    source_ss58: str = "stranger"


@dataclass(frozen=True)
class FakeBlock:
    number: int
    transfers: tuple[FakeTransfer, ...] = ()
    losses: tuple = ()
    time_s: int | None = None
    hash: str = ""


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "v.db", clock=ManualClock())
    store.accounts.create(
        lambda n: Account("alice", n, "alice", "h", "c", f"pay-{n}", f"dep-{n}", "0", 1)
    )
    yield store
    store.close()


@pytest.fixture
def payments(store):
    return Payments(store, ManualClock())


def paid(block, event=0, rao=100, to="pay-1", extrinsic=1):
    return FakeTransfer(f"0x{block}", extrinsic, event, to, rao)


def test_transfer_to_a_payment_address_is_credit(store, payments):
    """The destination decides whose credit it is; other transfers are nobody's."""
    block = FakeBlock(5, (paid(5), paid(5, 2, to="else")))
    assert payments.apply(block) == 1
    assert Ledger(store).balance("alice") == 100
    assert store.ledger.balance(CHAIN_PAYMENTS) == -100
    assert store.cursors.get("payments") == 5


def test_block_that_comes_again_credits_nothing(store, payments):
    """A replay of a block changes neither credit nor cursor."""
    payments.apply(FakeBlock(5, (paid(5),)))
    payments.apply(FakeBlock(6, (paid(6),)))
    assert payments.apply(FakeBlock(5, (paid(5),))) == 0
    assert Ledger(store).balance("alice") == 200
    assert store.cursors.get("payments") == 6


def test_two_events_of_one_extrinsic_are_two_payments(store, payments):
    """A batch of transfers is credited event by event."""
    assert payments.apply(FakeBlock(5, (paid(5, 1), paid(5, 2)))) == 2
    assert Ledger(store).balance("alice") == 200


def test_skipped_block_stops_the_crediting(store, payments):
    """A gap is an error, for payments in it would be lost."""
    payments.apply(FakeBlock(5))
    with pytest.raises(Conflict, match="block_skipped"):
        payments.apply(FakeBlock(7, (paid(7),)))
    assert Ledger(store).balance("alice") == 0
    assert store.cursors.get("payments") == 5


def test_beginning_is_set_once(payments):
    """The first start fixes where reading begins; a restart goes on from the cursor."""
    assert payments.begin(10) == 10
    payments.apply(FakeBlock(11))
    assert payments.begin(99) == 11


def test_failure_leaves_neither_credit_nor_cursor(store, payments, monkeypatch):
    """Credits and cursor are one transaction."""
    payments.apply(FakeBlock(5))

    def fail(name, value, **_):
        raise RuntimeError

    monkeypatch.setattr(store.cursors, "set", fail)
    with pytest.raises(RuntimeError):
        payments.apply(FakeBlock(6, (paid(6),)))
    assert Ledger(store).balance("alice") == 0
