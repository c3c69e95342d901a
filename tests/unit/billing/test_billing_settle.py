from dataclasses import replace

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict
from chutes_core.validator.billing.ledger import Ledger
from chutes_core.validator.billing.settle import Settlement
from chutes_core.validator.domain.accounts import FREE, Account, ApiKey
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.money import REVENUE
from chutes_core.validator.domain.snapshot import FreeCalls
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.launches.quota import Quota, free_calls
from chutes_core.validator.store.database import Store


class ListJournal:
    """A journal in memory."""

    worker = "w"

    def __init__(self, records):
        self.records = list(records)
        self.last_sequence = max((r.sequence for r in self.records), default=0)
        self.discarded = []

    def pending(self, after_sequence, limit):
        return [r for r in self.records if r.sequence > after_sequence][:limit]

    def discard(self, up_to_sequence):
        self.discarded.append(up_to_sequence)
        self.records = [r for r in self.records if r.sequence > up_to_sequence]


def call(sequence, **changes):
    fields = {
        "worker": "w",
        "sequence": sequence,
        "invocation_id": f"inv-{sequence}",
        "user_id": "u",
        "key_id": "k",
        "chute_id": "c",
        "launch_id": "l",
        "rate_id": "r",
        "rao_per_hour": 3_600_000_000,  # one rao a microsecond
        "hold_rao": 1_000,
        "free": False,
        "started_at_us": 9_000_000,
        "usage_us": 10,
        "bytes_in": 1,
        "bytes_out": 2,
        "attempts": 1,
        "status": 200,
        "outcome": "ok",
        **changes,
    }
    return Invocation(**fields)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "v.db", clock=ManualClock())
    yield store
    store.close()


def test_calls_are_charged_and_forgotten_by_the_journal(store):
    """Each answered call is one entry at its own rate, and the journal is told what is settled."""
    journal = ListJournal([call(1), call(2, usage_us=5_000), call(3, usage_us=0)])
    assert Settlement(store, batch=2).drain(journal) == 3
    assert Ledger(store).balance("u") == -(10 + 1_000)
    assert store.ledger.balance(REVENUE) == 1_010
    assert store.ledger.get("invocation:inv-1").at_s == 9
    assert store.ledger.get("invocation:inv-3") is None
    assert store.invocations.drained() == {"w": 3}
    assert journal.records == []
    assert Settlement(store).drain(journal) == 0


@pytest.mark.parametrize(
    ("changes", "rao"),
    [
        ({"outcome": "ok"}, 10),
        ({"outcome": "client_gone"}, 10),
        ({"outcome": "chute_error"}, 0),
        ({"outcome": "failed"}, 0),
        ({"free": True}, 0),
    ],
)
def test_only_answered_paid_calls_cost(store, changes, rao):
    """Failures and free calls are recorded without an entry."""
    Settlement(store).drain(ListJournal([call(1, **changes)]))
    assert store.ledger.balance(REVENUE) == rao
    assert store.invocations.get("inv-1") is not None


def test_journal_older_than_the_store_is_refused(store):
    """New records under settled sequences would pass for settled ones: an alarm instead."""
    Settlement(store).drain(ListJournal([call(5)]))
    with pytest.raises(Conflict, match="journal_behind"):
        Settlement(store).drain(ListJournal([call(1, invocation_id="new")]))


def test_journal_of_the_gateway_drains(store, tmp_path):
    """The real journal fits: its records are settled once, across a restart of both."""
    journal = Journal(tmp_path / "journal", "w")
    for number in (1, 2, 3):
        journal.append(call(number))
    assert Settlement(store).drain(journal) == 3
    journal.close()
    again = Journal(tmp_path / "journal", "w")
    assert Settlement(store).drain(again) == 0
    again.append(call(9, invocation_id="inv-9"))
    assert Settlement(store).drain(again) == 1
    again.close()
    assert store.ledger.balance(REVENUE) == 40


def test_what_a_key_spends_is_counted_once(store):
    """A key's spending is what its calls were charged, however often they are drained."""
    people(store)
    records = [call(1), call(2, usage_us=5), call(3, free=True)]
    Settlement(store).drain(ListJournal(records))
    assert store.keys.get("k").spent_rao == 15
    Settlement(store).drain(ListJournal([*records, call(4, key_id="other")]))
    assert store.keys.get("k").spent_rao == 15


def people(store):
    def build(number):
        return Account("u", number, "user", "hk", "ck", "pay", "dep", "fp", 0)

    store.accounts.create(build)
    store.keys.insert(ApiKey("k", "u", "k", "hash", True, (), 0))


def test_free_calls_of_a_day_are_counted_from_the_store(store):
    """What is left of a day is its quota less the free calls begun that day that count."""
    day_s = 1_700_006_400
    begun = {"started_at_us": day_s * 1_000_000, "free": True}
    records = [
        call(1, **begun),
        call(2, **(begun | {"outcome": "failed"})),
        call(3, **(begun | {"started_at_us": day_s * 1_000_000 - 1})),
        call(4, started_at_us=day_s * 1_000_000),
        call(5, **(begun | {"outcome": "client_gone"})),
    ]
    Settlement(store).drain(ListJournal(records))
    account = Account("u", 1, "user", "hk", "ck", "pay", "dep", "fp", 0, frozenset({FREE}))
    left = free_calls(store, Quota(3, day_s + 60), [account])
    assert left == {"u": FreeCalls(left=1, per_day=3, until_s=day_s + 86_400)}
    assert free_calls(store, Quota(1, day_s + 86_399), [account])["u"].left == 0
    assert free_calls(store, Quota(3, day_s + 86_400), [account])["u"].left == 3
    assert free_calls(store, None, [account]) == {}
    assert free_calls(store, Quota(3, day_s), [replace(account, roles=frozenset())]) == {}
