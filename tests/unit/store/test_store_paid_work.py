"""Sums of paid work: what scoring reads in place of single calls."""

from chutes_core.base.units import MICROSECONDS_PER_HOUR as HOUR_US
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.spans import PaidSum

NAMES = ("invocation_id", "key_id", "chute_id", "rate_id")


def call(sequence, hour, **changes):
    """Return a call of 5 us at a rao a millisecond: rounded up, it costs 1 rao."""
    numbers = {"bytes_in": 0, "bytes_out": 0, "attempts": 1, "status": 200, "usage_us": 5}
    fields = {
        **dict.fromkeys(NAMES, f"n{sequence}"),
        **numbers,
        "worker": "w",
        "sequence": sequence,
        "user_id": "u",
        "launch_id": "l",
        "rao_per_hour": 3_600_000,
        "hold_rao": 1_000,
        "free": False,
        "started_at_us": hour * HOUR_US + sequence,
        "outcome": "ok",
        **changes,
    }
    return Invocation(**fields)


CALLS = (
    call(1, 7),
    call(2, 8),
    call(3, 8, usage_us=2_000_000_000),  # above its hold: charged no more than that
    call(4, 8, outcome="client_gone"),
    call(5, 8, user_id="v"),
    call(6, 8, launch_id="m", outcome="chute_error_paid"),
    call(7, 8, free=True),
    call(8, 8, outcome="failed"),
    call(9, 8, outcome="chute_error"),
)
SUMS = (
    PaidSum("l", "u", 5 + 5 + 2_000_000_000 + 5, 1 + 1 + 1_000 + 1),
    PaidSum("l", "v", 5, 1),
    PaidSum("m", "u", 5, 1),
)


def test_calls_are_summed_with_what_the_ledger_charges(store):
    """By launch and payer; free and failed calls are left out, and a call counts once."""
    store.invocations.insert_many(CALLS[:4])
    store.invocations.insert_many(CALLS)
    assert store.paid_work.since(0) == SUMS


def test_whole_hours_are_read(store):
    """Those that began at the asked time or later."""
    store.invocations.insert_many(CALLS[:2])
    for from_us, calls in ((7 * HOUR_US, 2), (7 * HOUR_US + 1, 1), (8 * HOUR_US, 1)):
        assert [one.charge_rao for one in store.paid_work.since(from_us)] == [calls]
    assert store.paid_work.since(8 * HOUR_US + 1) == ()


def test_a_store_from_before_the_sums_has_them_after_it_opens(open_store):
    """The migration counts what was kept, by the same rule."""
    store = open_store()
    store.invocations.insert_many(CALLS)
    for sql in (
        "DROP TABLE paid_work",
        "DELETE FROM _sqlite_migrations WHERE name = '0121-paid-work'",
    ):
        store._connection.execute(sql)
    assert open_store().paid_work.since(0) == SUMS
