"""A statement in pages is the whole ledger of its user, each line once, newest first."""

import pytest

from chutes_core.validator.billing.ledger import Ledger
from chutes_core.validator.domain.money import CHAIN_PAYMENTS, Entry, Posting, user_credit
from chutes_core.validator.store.database import Store

LINES = 47


@pytest.fixture
def ledger(tmp_path):
    """Payments of two users, one after the other."""
    store = Store(tmp_path / "v.db")
    for number in range(2 * LINES):
        user = "alice" if number % 2 else "bob"
        postings = (Posting(user_credit(user), number + 1), Posting(CHAIN_PAYMENTS, -number - 1))
        store.ledger.apply(Entry(f"transfer:{number}", "payment", 1_700_000_000, postings))
    yield Ledger(store)
    store.close()


@pytest.mark.parametrize("limit", [1, 7, 25, 47, 100])
def test_pages_join_without_a_gap_or_a_repetition(ledger, limit):
    """Whatever the size of a page, also where many lines are of the same second."""
    lines, page = [], 0
    while True:
        statement = ledger.statement("alice", page=page, limit=limit)
        assert statement.total == LINES
        if not statement.lines:
            break
        assert len(statement.lines) <= limit
        lines += statement.lines
        page += 1
    assert [line.rao for line in lines] == list(range(2 * LINES, 0, -2))
    assert len({line.key for line in lines}) == LINES
    assert sum(line.rao for line in lines) == ledger.balance("alice")


def test_an_empty_statement_is_an_answer(ledger):
    """Somebody without a line has an empty first page."""
    assert ledger.statement("nobody", page=0, limit=25).lines == ()
