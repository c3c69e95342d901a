"""How many free calls an account has left of a day, for the gateway's picture.

Path: store -> here -> snapshot -> gateway/holds, which holds one for each call. Invariant: what is
left is read in the same transaction as ``drained``, so that no call counts twice or not at all.
Days are those of UTC.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from chutes_core.validator.domain.accounts import FREE, Account
from chutes_core.validator.domain.snapshot import FreeCalls
from chutes_core.validator.store.database import Store

DAY_S = 86_400


@dataclass(frozen=True)
class Quota:
    """How many calls of a day are free for an account that has free calls, and what time it is."""

    free_calls_per_day: int
    now_s: int


def free_calls(
    store: Store, quota: Quota | None, accounts: Iterable[Account]
) -> dict[str, FreeCalls]:
    """Return user id -> what is left of this day; empty where nothing is counted."""
    have = [account.user_id for account in accounts if FREE in account.roles]
    if quota is None or not have:
        return {}
    began_s = quota.now_s // DAY_S * DAY_S
    used = store.invocations.free_since(began_s * 1_000_000)
    per_day = quota.free_calls_per_day
    return {
        user_id: FreeCalls(max(0, per_day - used.get(user_id, 0)), per_day, began_s + DAY_S)
        for user_id in have
    }
