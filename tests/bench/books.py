"""What callers saw, instances saw and a stopped validator wrote, compared call by call.

Millions of calls are compared as well as few: ids go from the store to heaps (ids.py) row by row,
and the heaps are compared one after the other. Invariant: every answered call is charged once and
recorded once, no record is of a call that no instance saw, and the ledger adds up.
"""

from dataclasses import dataclass
from pathlib import Path

from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.store.database import Store
from tests.bench.ids import Ids
from tests.bench.lived_validator import Filled
from tests.bench.sealed_origin import Book

PENDING = 1_000_000


@dataclass(frozen=True)
class Books:
    """What a stopped validator has written.

    Attributes:
        records: ids of the records in the store.
        charged: ids of the ledger's entries of calls.
        undrained: records that the journal holds and the store does not.
        settled: whether the ledger conserves, agrees with its balances and the user's credit.
    """

    records: Ids
    charged: Ids
    undrained: int
    settled: bool


def books_of(folder: Path, filled: Filled) -> Books:
    """Read store and journals of a validator that has stopped."""
    records, charged = Ids(folder / "ids/records"), Ids(folder / "ids/charged")
    undrained = charged_rao = 0
    store = Store(folder / "data/validator.sqlite")
    try:
        db = store._connection.raw
        for (name,) in db.execute("SELECT invocation_id FROM invocations"):
            records.add(name)
        for key, rao in db.execute(
            "SELECT key, rao FROM entries JOIN postings USING (entry_id)"
            " WHERE kind='invocation' AND account=?",
            (f"user:{filled.user_id}:credit",),
        ):
            charged.add(key.removeprefix("invocation:"))
            charged_rao -= rao
        balance = store.ledger.balance(f"user:{filled.user_id}:credit")
        settled = (
            store.ledger.total() == 0
            and not store.ledger.disagreements()
            and balance == filled.credit_rao - charged_rao
        )
        for place in sorted((folder / "data/journal").iterdir()):
            journal = Journal(place, place.name)
            undrained += len(journal.pending(store.invocations.drained_of(place.name), PENDING))
            journal.close()
    finally:
        store.close()
    return Books(records, charged, undrained, settled)


@dataclass
class Compared:
    """What a comparison found, heap by heap."""

    answered: int = 0
    calls: int = 0
    records: int = 0
    charged: int = 0
    given_twice: int = 0
    lost: int = 0
    charged_twice: int = 0
    recorded_twice: int = 0
    unseen: int = 0


def compare(answered: Ids, calls: Ids, books: Books) -> Compared:
    """Return how many different ids each has, and what must not be."""
    found = Compared()
    for mine, seen, record, charge in zip(
        answered.heaps(), calls.heaps(), books.records.heaps(), books.charged.heaps(), strict=True
    ):
        found.answered += len(mine)
        found.calls += len(seen)
        found.records += len(record)
        found.charged += len(charge)
        found.given_twice += mine.total() - len(mine)
        found.charged_twice += charge.total() - len(charge)
        found.recorded_twice += record.total() - len(record)
        found.lost += len(mine.keys() - charge.keys())
        found.unseen += len(record.keys() - seen.keys())
    return found


def check(folder: Path, filled: Filled, book: Book, answered: Ids) -> dict[str, int]:
    """Compare what the callers saw, the instances and the ledger.

    Raises:
        AssertionError: they differ.
    """
    books = books_of(folder, filled)
    found = compare(answered, book.calls, books)
    wrong = (
        *(found.given_twice, found.lost, found.charged_twice),
        *(found.recorded_twice, found.unseen, books.undrained),
    )
    assert not any(wrong), f"{found}, not settled: {books.undrained}"
    assert books.settled, "the ledger does not add up"
    assert (book.repeated_keys, book.bad_seals, book.bad_preambles) == (0, 0, 0)
    return {
        "answered": found.answered,
        "charged": found.charged,
        "records": found.records,
        "reached_an_instance": found.calls,
        "lost": found.lost,
        "charged_twice": found.charged_twice,
        "recorded_twice": found.recorded_twice,
        "instance_connections": book.connections,
        "instance_busy": book.busy,
        "key_nonce_pairs": book.pairs,
        "keys": len(book.keys),
        "repeated_keys": book.repeated_keys,
        "bad_seals": book.bad_seals,
        "renewals": book.renewals,
    }
