"""How much instance time may fail free of charge (ADR 0007).

Path: metering asks it about calls that ended in an error of the chute's own. A bucket of instance
time for each caller and each chute: ALLOWED_US at once, filling up again within an hour. Invariant:
a failed call is free only while both buckets hold something, so that a chute which answers its work
with status 500 gets at most ALLOWED_US an hour, and one call, for nothing.
"""

from chutes_core.base.clock import Clock
from chutes_core.base.units import ceil_div

ALLOWED_US = 60 * 1_000_000
REFILL_US = 3600 * 1_000_000
MAX_BUCKETS = 20_000


class Grace:
    """Buckets by name, in microseconds of instance time; a name never seen has a full one.

    Where several gateways count apart, each has one of so many ``shares``.
    """

    def __init__(self, clock: Clock, *, shares: int = 1) -> None:
        self._clock = clock
        self._shares = shares
        self._buckets: dict[str, tuple[int, int]] = {}

    def forgives(self, user_id: str, chute_id: str, usage_us: int) -> bool:
        """Take the time of a failed call from both buckets, or tell that it is to be paid."""
        now_us = self._clock.monotonic_us()
        names = (f"user:{user_id}", f"chute:{chute_id}")
        left = [self._left_us(name, now_us) for name in names]
        if min(left) <= 0:
            return False
        for name, left_us in zip(names, left, strict=True):
            self._buckets[name] = (left_us - usage_us, now_us)
        if len(self._buckets) > MAX_BUCKETS:
            self._forget(now_us)
        return True

    @property
    def _allowed_us(self) -> int:
        return ceil_div(ALLOWED_US, self._shares)

    def _left_us(self, name: str, now_us: int) -> int:
        left_us, at_us = self._buckets.get(name, (self._allowed_us, now_us))
        filled_us = left_us + (now_us - at_us) * self._allowed_us // REFILL_US
        return min(self._allowed_us, filled_us)

    def _forget(self, now_us: int) -> None:
        """Drop full buckets, and if need be the oldest half."""
        allowed_us = self._allowed_us
        kept = {n: b for n, b in self._buckets.items() if self._left_us(n, now_us) < allowed_us}
        while len(kept) > MAX_BUCKETS // 2:
            del kept[next(iter(kept))]
        self._buckets = kept
