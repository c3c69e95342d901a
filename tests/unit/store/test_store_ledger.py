import pytest

from chutes_core.base.errors import ChutesError
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.money import Entry, Posting


def entry(key, rao, user="u"):
    return Entry(key, "test", 1, (Posting(f"user:{user}:credit", rao), Posting("chain", -rao)))


def invocation(sequence, worker="w", **changes):
    fields = {
        "worker": worker,
        "sequence": sequence,
        "invocation_id": f"inv-{worker}-{sequence}",
        "user_id": "u",
        "key_id": "k",
        "chute_id": "c",
        "launch_id": "l",
        "rate_id": "r",
        "rao_per_hour": 3_600_000,
        "hold_rao": 1_000,
        "free": False,
        "started_at_us": sequence,
        "usage_us": 5,
        "bytes_in": 1,
        "bytes_out": 2,
        "attempts": 1,
        "status": 200,
        "outcome": "ok",
        **changes,
    }
    return Invocation(**fields)


def test_entry_is_applied_once(store):
    """A key is applied once, also after a restart and with other content."""
    assert store.ledger.apply(entry("a", 5))
    assert not store.ledger.apply(entry("a", 5))
    assert not store.ledger.apply(entry("a", 7))
    assert store.ledger.balance("user:u:credit") == 5
    assert store.ledger.get("a") == entry("a", 5)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE entries SET kind='x'",
        "DELETE FROM entries",
        "UPDATE postings SET rao=0",
        "DELETE FROM postings",
    ],
)
def test_ledger_refuses_change_and_deletion(store, sql):
    """Even SQL by hand cannot change what was posted."""
    store.ledger.apply(entry("a", 5))
    with pytest.raises(ChutesError, match="append-only"):
        store._connection.execute(sql)
    assert store.ledger.balance("user:u:credit") == 5


def test_balances_by_prefix_take_the_prefix_literally(store):
    """A prefix is no pattern: `_` and `%` stand for themselves."""
    store.ledger.apply(entry("a", 5, "u_1"))
    store.ledger.apply(entry("b", 6, "ux1"))
    assert store.ledger.balances("user:u_") == {"user:u_1:credit": 5}
    assert set(store.ledger.balances("user:")) == {"user:u_1:credit", "user:ux1:credit"}


def test_statement_lines_are_newest_first(store):
    """Lines come in pages, the newest first."""
    for number in range(5):
        store.ledger.apply(entry(f"k{number}", number + 1))
    lines = store.ledger.lines("user:u:credit", offset=1, limit=2)
    assert [line.key for line in lines] == ["k3", "k2"]
    assert store.ledger.count_lines("user:u:credit") == 5


def test_invocations_are_stored_once_by_worker_and_sequence(store):
    """A record that comes again is not new; another worker's is."""
    first = invocation(1)
    assert store.invocations.insert_many([first, first]) == (first,)
    both = (invocation(1), invocation(1, "v"), invocation(2))
    assert store.invocations.insert_many(both) == both[1:]
    assert store.invocations.between(0, 2) == (both[1], first)
    assert store.invocations.get("inv-w-2") == both[2]
    assert store.invocations.count_of_chute("c") == 3


def test_drained_sequences_are_kept_by_worker(store):
    """Each worker has its own mark, 0 before the first."""
    assert store.invocations.drained_of("w") == 0
    store.invocations.set_drained("w", 7)
    store.invocations.set_drained("v", 2)
    assert store.invocations.drained() == {"v": 2, "w": 7}
