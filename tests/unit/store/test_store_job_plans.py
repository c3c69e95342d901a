"""What is asked of jobs every second reads what is open, not all that there ever was."""

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.validator.store.database import Store


@pytest.mark.parametrize(
    "ask",
    [
        lambda rows: rows.open(),
        lambda rows: rows.claimed(),
        lambda rows: rows.left_over(),
        lambda rows: rows.waiting("c"),
        lambda rows: rows.delete("j"),
    ],
)
def test_no_table_is_read_whole(tmp_path, monkeypatch, ask):
    """SQLite's own plan of each question names an index for every table."""
    store = Store(tmp_path / "v.sqlite", clock=ManualClock())
    db, asked = store.jobs._db, []

    def noting(method):
        def note(sql, values=()):
            asked.append((sql, values))
            return method(sql, values)

        return note

    plain = db.all
    for name in ("all", "number", "change"):
        monkeypatch.setattr(db, name, noting(getattr(db, name)))
    ask(store.jobs)
    plans = [
        row["detail"] for one in asked for row in plain(f"EXPLAIN QUERY PLAN {one[0]}", one[1])
    ]
    assert asked
    assert plans
    assert [plan for plan in plans if plan.startswith("SCAN") and "INDEX" not in plan] == []
    store.close()
