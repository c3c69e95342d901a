"""A token bucket for each API key. Invariant: integers, bounded memory, an injected clock."""

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Exhausted
from chutes_core.base.units import ceil_div

MAX_BUCKETS = 20_000
_WHOLE = (
    1_000_000  # one call, in microcalls: at r calls per second a bucket gains r per microsecond
)


class Buckets:
    """Lets ``per_s`` calls a second through for each key, and ``burst`` at once."""

    def __init__(self, *, per_s: int, burst: int, clock: Clock) -> None:
        self._per_s = per_s
        self._full = burst * _WHOLE
        self._clock = clock
        self._buckets: dict[str, tuple[int, int]] = {}

    def take(self, key: str) -> None:
        """Count one call of a key.

        Raises:
            Exhausted: ``rate_limited``, with the seconds until the next call may pass.
        """
        now_us = self._clock.monotonic_us()
        tokens = self._tokens(key, now_us)
        if tokens < _WHOLE:
            wait_us = ceil_div(_WHOLE - tokens, self._per_s)
            raise Exhausted(
                "rate_limited",
                f"this key may make {self._per_s} calls a second",
                hint="wait as long as Retry-After says",
                retry_after_s=ceil_div(wait_us, 1_000_000),
            )
        self._buckets[key] = (tokens - _WHOLE, now_us)
        if len(self._buckets) > MAX_BUCKETS:
            self._forget_full(now_us)

    def _tokens(self, key: str, now_us: int) -> int:
        tokens, at_us = self._buckets.get(key, (self._full, now_us))
        return min(self._full, tokens + (now_us - at_us) * self._per_s)

    def _forget_full(self, now_us: int) -> None:
        """Drop full buckets (they are as good as new ones), and if need be the oldest half."""
        used = {k: v for k, v in self._buckets.items() if self._tokens(k, now_us) < self._full}
        while len(used) > MAX_BUCKETS // 2:
            del used[next(iter(used))]
        self._buckets = used
