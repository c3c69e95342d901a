"""The process ends before each single statement that crediting and refunding write: nothing shows.

Each operation is first done undisturbed and its statements are counted; then, on a copy of the same
store, it dies before statement 0, 1, 2 … and is done again by the next process, as the loops and
the spool do. The operations together take every step of the tables of domain/deposits.
"""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from bittensor_core import Keypair

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict
from chutes_core.validator.billing.deposits import Deposits
from chutes_core.validator.billing.payments import Payments
from chutes_core.validator.billing.refunds import RefundReport, Refunds
from chutes_core.validator.billing.roles import DepositTerms
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.deposits import DEPOSIT_NEXT, REFUND_NEXT
from chutes_core.validator.store.database import Store
from chutes_core.validator.store.deposits import DepositRows, RefundRows

T0 = 1_700_000_000
TERMS = DepositTerms(required_rao=1_000, enforced=True, lock_s=0)
COLD = Keypair.create_from_uri("//Cold").ss58_address
DEPOSITED, FEE, REST = 1_000_000, 100, 500
PAID = DEPOSITED - FEE - REST


class DiedError(BaseException):
    """The process is gone: nothing in it may catch this."""


@dataclass(frozen=True)
class Event:
    """A transfer, or a fee that an account lost."""

    block_hash: str
    event_index: int
    rao: int
    source_ss58: str = "stranger"
    destination_ss58: str = ""
    account_ss58: str = ""
    extrinsic_index: int = 1


@dataclass(frozen=True)
class Block:
    """A finalized block."""

    number: int
    transfers: tuple = ()
    losses: tuple = ()
    time_s: int | None = T0
    hash: str = "0x1"


class Money:
    """What one process has: everything is built anew on the store's file."""

    def __init__(self, path):
        self.store = Store(path)
        clock = ManualClock(T0)
        self.payments = Payments(self.store, clock, Deposits(self.store, clock, TERMS))
        self.refunds = Refunds(self.store, clock, TERMS, fee_rao=lambda: FEE)

    def die_before(self, statement):
        """Count statements; None dies nowhere. Return how many were run, as a list of one."""
        execute, counted = self.store._connection.execute, [0]

        def dying(sql, values=()):
            if statement is not None and counted[0] >= statement:
                raise DiedError
            counted[0] += 1
            return execute(sql, values)

        self.store._connection.execute = dying
        return counted

    def cut(self):
        """Leave without a clean end: what was not committed is lost."""
        self.store._connection.raw.close()

    def picture(self):
        """Return all that money is, without the names that chance gave."""
        store = self.store
        accounts = ("user:u:credit", "user:u:deposit", "chain:deposits:u", "chain:payments")
        others = ("refunds:u", "rest:u", "treasury:payments", "costs:failed-refunds")
        return {
            "ledger": {name: store.ledger.balance(name) for name in (*accounts, *others)},
            "total": store.ledger.total(),
            "deposits": [(d.rao, d.state.value) for d in store.deposits.of_user("u")],
            "refunds": [(r.amount_rao, r.paid_rao, r.state.value) for r in self.open_refunds()],
            "cursor": store.cursors.get("payments"),
            "roles": sorted(store.accounts.get("u").roles),
            "notice": store.notices.get("u") is not None,
        }

    def open_refunds(self):
        """Return every refund of the account."""
        return self.store.refunds.of_user("u")

    def refund_id(self):
        """Return the one refund's id."""
        (refund,) = self.open_refunds()
        return refund.refund_id


def move_in(money):
    """Open the account."""
    row = Account("u", 1, "u", "hot", COLD, "pay-1", "dep-1", "0", 1)
    money.store.accounts.create(lambda _: row)
    money.store.accounts.prove_coldkey("u", COLD, "signature")
    money.payments.begin(0)


def event(number, index, rao, **places):
    """Return an event of a block."""
    return Event(f"0x{number:064x}", index, rao, **places)


def credit(money):
    """A block with a payment and a deposit, and one to nobody."""
    to = ((PAID, "pay-1"), (DEPOSITED, "dep-1"), (7, "else"))
    transfers = [event(1, i, rao, destination_ss58=a) for i, (rao, a) in enumerate(to)]
    money.payments.apply(Block(1, tuple(transfers)))


def ask(money):
    """The account asks everything back; whoever got no answer asks again."""
    account = money.store.accounts.get("u")
    with contextlib.suppress(Conflict):  # the first request was stored, only its answer got lost
        money.refunds.request(account)


def report(outcome, name="0xaa", **facts):
    """Return what takes a report of the signer."""

    def take(money):
        money.refunds.take(RefundReport(money.refund_id(), outcome, name, **facts))

    return take


submitted = report("submitted")
died = report("died")
again = report("submitted", "0xbb")
finalized = report("finalized", "0xbb", paid_rao=PAID, fee_rao=FEE, block_number=2)
failed = report("failed", "0xbb", fee_rao=FEE, block_number=2)
refused = report("failed", "", reason="fee_exceeds_deposit")


def left(money):
    """The block in which the refund left its address, and the sweep another one."""
    refund = event(2, 0, PAID, source_ss58="dep-1", destination_ss58=COLD)
    sweep = event(2, 1, PAID - 300, source_ss58="pay-1", destination_ss58="till")
    fees = tuple(event(2, 5 + i, FEE, account_ss58=f"{a}-1") for i, a in enumerate(("dep", "pay")))
    money.payments.apply(Block(2, (refund, sweep), fees))


@dataclass(frozen=True)
class Operation:
    """One operation, and what came before it."""

    name: str
    before: tuple[Callable, ...]
    act: Callable

    def __str__(self):
        return self.name


OPERATIONS = (
    Operation("credit", (move_in,), credit),
    Operation("request", (move_in, credit), ask),
    Operation("submitted", (move_in, credit, ask), submitted),
    Operation("refused", (move_in, credit, ask), refused),
    Operation("died", (move_in, credit, ask, submitted), died),
    Operation("resubmitted", (move_in, credit, ask, submitted), again),
    Operation("finalized", (move_in, credit, ask, again), finalized),
    Operation("finalized-after-block", (move_in, credit, ask, again, left), finalized),
    Operation("failed", (move_in, credit, ask, again), failed),
    Operation("left", (move_in, credit, ask, again), left),
    Operation("left-after-report", (move_in, credit, ask, again, finalized), left),
)


def prepare(path, operation):
    """Make the store as it is before the operation."""
    money = Money(path)
    for step in operation.before:
        step(money)
    money.store.close()


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_process_that_ends_before_any_statement_leaves_no_trace(tmp_path, operation):
    """Done again after any death, and once more, it is as if it had been done once."""
    prepare(tmp_path / "base.db", operation)

    def copy(name):
        return shutil.copy(tmp_path / "base.db", tmp_path / f"{name}.db")

    whole = Money(copy("whole"))
    steps = whole.die_before(None)
    operation.act(whole)
    statements = steps[0]
    expected = whole.picture()
    whole.cut()
    assert statements > 2
    for statement in range(statements):
        path = copy(str(statement))
        first = Money(path)
        first.die_before(statement)
        with pytest.raises(DiedError):
            operation.act(first)
        first.cut()
        second = Money(path)
        operation.act(second)
        assert second.picture() == expected, f"death before statement {statement}"
        operation.act(second)
        assert second.picture() == expected
        second.cut()


def test_the_operations_take_every_step_of_the_tables(tmp_path, monkeypatch):
    """A state that is added to the tables needs an operation here."""
    seen = set()
    move_deposit, move_refund = DepositRows.move, RefundRows.move

    def deposit_moved(rows, deposit, state, *, refund_id):
        seen.add((deposit.state, state))
        move_deposit(rows, deposit, state, refund_id=refund_id)

    def refund_moved(rows, before, after):
        seen.add((before.state, after.state))
        move_refund(rows, before, after)

    monkeypatch.setattr(DepositRows, "move", deposit_moved)
    monkeypatch.setattr(RefundRows, "move", refund_moved)
    for number, operation in enumerate(OPERATIONS):
        prepare(
            tmp_path / f"{number}.db", replace(operation, before=(*operation.before, operation.act))
        )
    tables = (DEPOSIT_NEXT, REFUND_NEXT)
    assert seen == {(a, b) for table in tables for a, after in table.items() for b in after}
