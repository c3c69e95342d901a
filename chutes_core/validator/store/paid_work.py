"""Rows of paid work: the charged calls of an hour as sums by launch and payer, which scoring reads.

Invariant: a call is counted in the transaction that first keeps it, so the sums are those of all
kept invocations; reading a week costs launches times payers, however many calls there were.
"""

from collections import defaultdict
from collections.abc import Iterable

from chutes_core.base.units import MICROSECONDS_PER_HOUR
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.spans import PaidSum
from chutes_core.validator.store.connection import Connection


class PaidWorkRows:
    """Sums by launch, user and hour of the call's start."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def add(self, invocations: Iterable[Invocation]) -> None:
        """Count calls that are kept for the first time, inside their transaction."""
        sums: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0, 0])
        for one in invocations:
            if one.charged:
                hour = one.started_at_us // MICROSECONDS_PER_HOUR
                found = sums[one.launch_id, one.user_id, hour]
                found[0] += 1
                found[1] += max(one.usage_us, 0)
                found[2] += one.charge_rao
        for key, found in sums.items():
            self._db.change(
                "INSERT INTO paid_work VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
                " calls = calls + excluded.calls, usage_us = usage_us + excluded.usage_us,"
                " charge_rao = charge_rao + excluded.charge_rao",
                (*key, *found),
            )

    def since(self, from_us: int) -> tuple[PaidSum, ...]:
        """Return the sums of all hours that began at ``from_us`` or later."""
        rows = self._db.all(
            "SELECT launch_id, user_id, sum(usage_us) AS usage_us, sum(charge_rao) AS charge_rao"
            " FROM paid_work WHERE hour >= ? GROUP BY launch_id, user_id"
            " ORDER BY launch_id, user_id",
            (-(-from_us // MICROSECONDS_PER_HOUR),),
        )
        return tuple(PaidSum(**dict(row)) for row in rows)
