"""Gifts, fees and calls take from one balance, in every order: it never goes below zero."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import PaymentRequired
from chutes_core.validator.billing.gifts import Gifts
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.money import REVENUE, Entry, Posting, Rate, user_credit
from chutes_core.validator.domain.snapshot import PayerView
from chutes_core.validator.gateway.holds import Hold, Holds, Spending
from chutes_core.validator.store.database import Store

USERS = st.sampled_from(("a", "b"))
AMOUNTS = st.integers(1, 120)


@dataclass(eq=False)
class Write:
    """A spending between its hold and its end."""

    user: str
    rao: int
    spend: Spending
    others_rao: int
    entry_id: int | None = None


@dataclass
class Picture:
    """What a snapshot shows of the ledger."""

    balances: dict[str, int]
    drained: int
    entry_id: int


@dataclass
class Ledger:
    """The model: balances, and which charges and entries are in them."""

    balances: dict[str, int] = field(default_factory=lambda: {"a": 200, "b": 60})
    drained: int = 0
    entry_id: int = 0

    def picture(self) -> Picture:
        return Picture(dict(self.balances), self.drained, self.entry_id)


class Money(RuleBasedStateMachine):
    """Admission, metering, settlement, pictures, payments and spendings, step by step."""

    running, writes = Bundle("running"), Bundle("writes")

    def __init__(self) -> None:
        super().__init__()
        self.holds, self.ledger = Holds(), Ledger()
        self.built = self.seen = self.ledger.picture()
        self.charges: list[tuple[str, int]] = []
        self.open: dict[str, int] = {"a": 0, "b": 0}
        self.pending: list[Write] = []

    @rule(target=running, user=USERS, rao=AMOUNTS)
    def admit(self, user: str, rao: int) -> tuple[str, Hold] | None:
        payer = PayerView(user, "", self.seen.balances[user])
        try:
            hold = self.holds.open(payer, Rate("r", 1, rao))
        except PaymentRequired:
            return None
        self.open[user] += rao
        return user, hold

    @rule(call=consumes(running), part=st.integers(0, 100))
    def answer(self, call: tuple[str, Hold] | None, part: int) -> None:
        if call is not None:
            user, hold = call
            self.charges.append((user, hold.rao * part // 100))
            self.open[user] -= hold.rao
            hold.settle(len(self.charges), self.charges[-1][1])

    @rule()
    def drain(self) -> None:
        for user, rao in self.charges[self.ledger.drained :]:
            self.ledger.balances[user] -= rao
            self.ledger.entry_id += 1
        self.ledger.drained = len(self.charges)

    @rule(user=USERS, rao=AMOUNTS)
    def pay_in(self, user: str, rao: int) -> None:
        self.ledger.balances[user] += rao
        self.ledger.entry_id += 1

    @rule()
    def build_picture(self) -> None:
        self.built = self.ledger.picture()

    @rule()
    def swap_picture(self) -> None:
        self.seen = self.built
        self.holds.drained(self.seen.drained, self.seen.entry_id)

    @rule(target=writes, user=USERS, rao=AMOUNTS)
    def hold_spending(self, user: str, rao: int) -> Write:
        spend = self.holds.spending()
        write = Write(user, rao, spend, spend.hold(user, rao))
        self.pending.append(write)
        return write

    @rule(write=writes)
    def write_spending(self, write: Write) -> None:
        free_rao = self.ledger.balances[write.user] - write.others_rao
        if write.entry_id is None and write.rao <= free_rao:
            self.ledger.balances[write.user] -= write.rao
            self.ledger.entry_id += 1
            write.entry_id = self.ledger.entry_id
            write.spend.written(write.entry_id)

    @rule(write=consumes(writes))
    def end_spending(self, write: Write) -> None:
        self.pending.remove(write)
        write.spend.__exit__(None, None, None)

    @invariant()
    def nothing_is_spent_twice(self) -> None:
        for user, balance in self.ledger.balances.items():
            owed = sum(rao for who, rao in self.charges[self.ledger.drained :] if who == user)
            assert balance - owed - self.open[user] >= 0

    def teardown(self) -> None:
        """Once everything is written and shown, only the calls that run hold something."""
        for write in list(self.pending):
            self.end_spending(write)
        self.drain()
        self.build_picture()
        self.swap_picture()
        for user, rao in self.open.items():
            assert self.holds.taken_rao(user) == rao


TestMoney = Money.TestCase
TestMoney.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with two accounts, the first of which has 3,000 rao."""
    with _store(tmp_path) as store:
        yield store


@contextmanager
def _store(folder: Path) -> Iterator[Store]:
    store = Store(folder / "v.sqlite", clock=SystemClock())
    for user_id in ("a", "b"):
        store.accounts.create(partial(_account, user_id))
    postings = (Posting(user_credit("a"), 3_000), Posting(REVENUE, -3_000))
    store.ledger.apply(Entry("payment", "payment", 1, postings))
    yield store
    store.close()


def _account(user_id: str, number: int) -> Account:
    return Account(user_id, number, user_id, f"h{number}", "c", f"p{number}", f"d{number}", "0", 1)


def _payer(store: Store) -> PayerView:
    return PayerView("a", "", store.ledger.balance(user_credit("a")))


def test_what_was_given_cannot_be_called_with_before_the_next_picture(store: Store) -> None:
    """Between a gift's commit and the next snapshot, the money can be spent nowhere."""
    holds, stale = Holds(), _payer(store)
    gift = Gifts(store, SystemClock(), holds.spending).give(_account("a", 1), "b", 2_990)
    assert gift.postings[0].rao == -2_990
    with pytest.raises(PaymentRequired):
        holds.open(stale, Rate("r", 1, 11))
    holds.open(stale, Rate("r", 1, 10)).release()
    fresh = _payer(store)
    holds.drained(0, store.ledger.last_entry_id())
    assert holds.taken_rao("a") == 0
    with pytest.raises(PaymentRequired):
        holds.open(fresh, Rate("r", 1, 11))


def test_a_refused_gift_holds_nothing(store: Store) -> None:
    """The money of a spending that was not written is free at once."""
    holds = Holds()
    with pytest.raises(PaymentRequired):
        Gifts(store, SystemClock(), holds.spending).give(_account("a", 1), "b", 3_001)
    assert holds.taken_rao("a") == 0


def test_gifts_in_threads_and_calls_never_overdraw(store: Store) -> None:
    """Calls are admitted from stale pictures while threads give the same credit away."""
    holds, balances = Holds(), list[int]()
    gifts = Gifts(store, SystemClock(), holds.spending)

    def give() -> None:
        refused = 0
        while refused < 3:
            try:
                gifts.give(_account("a", 1), "b", 20)
            except PaymentRequired:
                refused += 1

    threads = [threading.Thread(target=give) for _ in range(2)]
    for thread in threads:
        thread.start()
    sequence, payer = 0, _payer(store)
    while any(thread.is_alive() for thread in threads):
        try:
            hold = holds.open(payer, Rate("r", 1, 20))
        except PaymentRequired:
            with store.transaction():  # a picture, as launches/snapshot takes it
                payer, entry_id = _payer(store), store.ledger.last_entry_id()
            holds.drained(sequence, entry_id)
            continue
        sequence += 1
        hold.settle(sequence, 20)
        postings = (Posting(user_credit("a"), -20), Posting(REVENUE, 20))
        store.ledger.apply(Entry(f"call:{sequence}", "invocation", 1, postings))
        balances.append(store.ledger.balance(user_credit("a")))
    for thread in threads:
        thread.join()
    assert min(balances) >= 0
    assert store.ledger.balance(user_credit("a")) >= 0
    assert store.ledger.total() == 0
