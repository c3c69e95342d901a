"""The money path under any order, any duplicates, and a death between any two steps."""

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.base.clock import ManualClock
from chutes_core.validator.billing.payments import Payments
from chutes_core.validator.billing.settle import Settlement, charge_entry
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.money import (
    CHAIN_PAYMENTS,
    REVENUE,
    Entry,
    Posting,
    user_credit,
)
from chutes_core.validator.store.database import Store

USERS = ("a", "b", "c")
STEPS = 46  # of a drain of three records in batches of two; counted by a test below


class Died(BaseException):
    """The process is gone: nothing in it may catch this."""


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
    transfers: tuple[FakeTransfer, ...]
    losses: tuple = ()
    time_s: int | None = None
    hash: str = ""


class DiskJournal:
    """What survives a death: the records and what was discarded, as files would."""

    worker = "w"

    def __init__(self, records):
        self.records = list(records)
        self.last_sequence = len(records)

    def pending(self, after_sequence, limit):
        return [r for r in self.records if r.sequence > after_sequence][:limit]

    def discard(self, up_to_sequence):
        self.records = [r for r in self.records if r.sequence > up_to_sequence]


def entry(key, moves):
    postings = [Posting(user_credit(user), rao) for user, rao in moves]
    postings.append(Posting(REVENUE, -sum(rao for _, rao in moves)))
    return Entry(str(key), "test", 1, tuple(postings))


moves = st.lists(
    st.tuples(st.sampled_from(USERS), st.integers(-(10**15), 10**15)), min_size=1, max_size=4
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(moves, min_size=1, max_size=8),
    st.data(),
)
def test_ledger_conserves_under_any_order_duplicates_and_restarts(movements, data):
    """Whatever comes in whatever order, how often and across restarts: each key counts once."""
    entries = [entry(key, moved) for key, moved in enumerate(movements)]
    arrivals = data.draw(st.lists(st.sampled_from(entries), max_size=20)) + entries
    arrivals = data.draw(st.permutations(arrivals))
    restarts = data.draw(st.sets(st.integers(0, len(arrivals))))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "v.db"
        store = Store(path)
        applied = 0
        for position, arrival in enumerate(arrivals):
            if position in restarts:
                store.close()
                store = Store(path)
            applied += store.ledger.apply(arrival)
        expected = dict.fromkeys(map(user_credit, USERS), 0)
        for posting in itertools.chain.from_iterable(e.postings for e in entries):
            expected[posting.account] = expected.get(posting.account, 0) + posting.rao
        found = {account: store.ledger.balance(account) for account in expected}
        assert applied == len(entries)
        assert found == expected
        assert store.ledger.total() == sum(store.ledger.balances("").values()) == 0
        assert store.ledger.disagreements() == ()
        store.close()


calls = st.builds(
    dict,
    user_id=st.sampled_from(USERS),
    usage_us=st.integers(0, 10**9),
    rao_per_hour=st.integers(0, 10**12),
    hold_rao=st.integers(0, 10**9),
    free=st.booleans(),
    outcome=st.sampled_from(("ok", "client_gone", "chute_error", "failed")),
)


def invocation(sequence, fields):
    return Invocation(
        worker="w",
        sequence=sequence,
        invocation_id=f"i{sequence}",
        key_id="k",
        chute_id="c",
        launch_id="l",
        rate_id="r",
        started_at_us=sequence,
        bytes_in=0,
        bytes_out=0,
        attempts=1,
        status=200,
        **fields,
    )


def instrument(store, journal, die_at):
    """Count every step that touches disk; from step number ``die_at`` on none happens any more."""
    steps = itertools.count()

    def step():
        number = next(steps)
        if die_at is not None and number >= die_at:
            raise Died

    execute, discard = store._connection.execute, journal.discard

    def dying_execute(sql, values=()):
        step()
        return execute(sql, values)

    def dying_discard(up_to_sequence):
        step()
        discard(up_to_sequence)

    store._connection.execute = dying_execute
    journal.discard = dying_discard
    return steps


def drain_until_done(path, journal, deaths, batch):
    """Drain with a death at each given step, as a process that is killed and started again."""
    for die_at in deaths:
        store = Store(path)
        keep = journal.discard
        instrument(store, journal, die_at)
        try:
            Settlement(store, batch=batch).drain(journal)
        except Died:
            pass
        finally:
            journal.discard = keep
            store._connection.raw.close()  # no clean end: an open transaction is lost
    store = Store(path)
    Settlement(store, batch=batch).drain(journal)
    return store


@settings(max_examples=40, deadline=None)
@given(
    st.lists(calls, min_size=1, max_size=6),
    st.lists(st.integers(0, 60), max_size=4),
    st.integers(1, 4),
)
def test_drain_is_exactly_once_whenever_the_process_dies(fields, deaths, batch):
    """Every answered call is charged once, wherever a drain was cut off, however often."""
    records = [invocation(number, each) for number, each in enumerate(fields, 1)]
    with tempfile.TemporaryDirectory() as directory:
        store = drain_until_done(Path(directory) / "v.db", DiskJournal(records), deaths, batch)
        assert store.invocations.between(0, 10**9) == tuple(records)
        charges = [charge for charge in map(charge_entry, records) if charge is not None]
        assert all(store.ledger.get(charge.key) == charge for charge in charges)
        revenue = sum(charge.postings[1].rao for charge in charges)
        assert store.ledger.balance(REVENUE) == revenue
        paid = store.paid_work.since(0)
        assert sum(one.charge_rao for one in paid) == revenue
        assert sum(one.usage_us for one in paid) == sum(r.usage_us for r in records if r.charged)
        assert all(0 < c.postings[1].rao <= r.hold_rao for r in records for c in charges_of(r))
        assert store.ledger.disagreements() == ()
        store.close()


def charges_of(record):
    charge = charge_entry(record)
    return [] if charge is None else [charge]


@pytest.mark.parametrize("die_at", range(34))
def test_drain_survives_a_death_before_each_single_step(tmp_path, die_at):
    """Each step of one drain in turn is the last of its process."""
    fields = {
        "user_id": "a",
        "usage_us": 10,
        "rao_per_hour": 3_600_000_000,
        "hold_rao": 100,
        "free": False,
        "outcome": "ok",
    }
    journal = DiskJournal([invocation(number, fields) for number in (1, 2, 3)])
    store = drain_until_done(tmp_path / "v.db", journal, [die_at], 2)
    assert store.ledger.balance(REVENUE) == 30
    assert store.ledger.count_lines(REVENUE) == 3
    assert store.invocations.drained() == {"w": 3}
    assert journal.records == []
    store.close()


def test_the_steps_of_a_drain_are_all_covered(tmp_path):
    """The test above dies at every step that a drain of that size has."""
    fields = {
        "user_id": "a",
        "usage_us": 10,
        "rao_per_hour": 3_600_000_000,
        "hold_rao": 100,
        "free": False,
        "outcome": "ok",
    }
    journal = DiskJournal([invocation(number, fields) for number in (1, 2, 3)])
    store = Store(tmp_path / "v.db")
    steps = instrument(store, journal, None)
    Settlement(store, batch=2).drain(journal)
    assert next(steps) == STEPS
    store._connection.raw.close()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(("pay-1", "pay-2", "else")), st.integers(0, 10**15)),
            max_size=3,
        ),
        min_size=1,
        max_size=6,
    ),
    st.data(),
)
def test_payments_are_idempotent_under_replays_and_restarts(chain, data):
    """Blocks read again after any restart credit each transfer once."""
    blocks = [
        FakeBlock(
            number,
            tuple(
                FakeTransfer(f"0x{number}", 1, event, to, rao)
                for event, (to, rao) in enumerate(transfers)
            ),
        )
        for number, transfers in enumerate(chain, 1)
    ]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "v.db"
        store = Store(path)
        for name in ("x", "y"):
            store.accounts.create(
                lambda n, name=name: Account(
                    name, n, name, f"h{name}", "c", f"pay-{n}", f"dep-{n}", "0", 1
                )
            )
        for block in blocks:
            Payments(store, ManualClock()).apply(block)
            back = data.draw(st.integers(1, block.number))
            store.close()
            store = Store(path)
            for again in blocks[back - 1 : block.number]:
                assert Payments(store, ManualClock()).apply(again) == 0
        everything = [t for block in blocks for t in block.transfers]
        for user, address in (("x", "pay-1"), ("y", "pay-2")):
            expected = sum(t.rao for t in everything if t.destination_ss58 == address)
            assert store.ledger.balance(user_credit(user)) == expected
        credited = sum(t.rao for t in everything if t.destination_ss58 != "else")
        assert store.ledger.balance(CHAIN_PAYMENTS) == -credited
        assert store.cursors.get("payments") == len(blocks)
        store.close()
