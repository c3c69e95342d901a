"""A token bucket for each API key. Invariant: integers, bounded memory, an injected clock."""

from dataclasses import dataclass
from typing import NamedTuple

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Exhausted
from chutes_core.base.units import ceil_div

MAX_BUCKETS = 20_000
# One call, in sixty-millionths: at r calls a minute a bucket gains r per microsecond.
_WHOLE = 60_000_000


class Standing(NamedTuple):
    """Where a key stands: calls it may make at once, how many are left, seconds until all are."""

    limit: int
    remaining: int
    reset_s: int


class RateLimited(Exhausted):
    """One call more than a key may make now; ``standing`` is the key's."""

    def __init__(self, message: str, *, retry_after_s: int, standing: Standing) -> None:
        hint = "wait as long as Retry-After says"
        super().__init__("rate_limited", message, hint=hint, retry_after_s=retry_after_s)
        self.standing = standing


class Buckets:
    """Lets ``per_s`` calls a second through for each key, and ``burst`` at once.

    A key with a limit of its own per minute may use that minute's calls at once, too; the house's
    limit holds beside it.
    """

    def __init__(self, *, per_s: int, burst: int, clock: Clock) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key: str, *, calls_per_minute: int | None = None) -> Standing:
        """Count one call of a key, and return where it stands by the narrower of its limits.

        Args:
            key: its id.
            calls_per_minute: the key's own limit.

        Raises:
            RateLimited: with the seconds until the next call may pass.
        """
        now_us = self._clock.monotonic_us()
        house = narrow = self._filled(key, self._per_s * 60, self._burst, now_us)
        _check(house, self._per_s, "second")
        if calls_per_minute is not None:
            own_name = f"own:{key}"
            own = self._filled(own_name, calls_per_minute, calls_per_minute, now_us)
            _check(own, calls_per_minute, "minute")
            own.tokens -= _WHOLE
            narrow = own if own.tokens < house.tokens else house
        house.tokens -= _WHOLE
        if len(self._buckets) > MAX_BUCKETS:
            self._forget_full(now_us)
        return narrow.standing()

    def _filled(self, name: str, per_minute: int, burst: int, now_us: int) -> "_Bucket":
        """Return a bucket as it is now; a changed limit counts from now on."""
        full = burst * _WHOLE
        known = self._buckets.get(name)
        if known is None:
            known = self._buckets[name] = _Bucket(full, now_us, per_minute, full)
            return known
        known.tokens = min(full, known.tokens_at(now_us))
        known.at_us, known.per_minute, known.full = now_us, per_minute, full
        return known

    def _forget_full(self, now_us: int) -> None:
        """Drop full buckets (they are as good as new ones), and if need be the oldest half."""
        used = {n: b for n, b in self._buckets.items() if b.tokens_at(now_us) < b.full}
        while len(used) > MAX_BUCKETS // 2:
            del used[next(iter(used))]
        self._buckets = used


@dataclass(slots=True)
class _Bucket:
    """What one bucket held at a moment, and how it fills; changed in place on every call."""

    tokens: int
    at_us: int
    per_minute: int
    full: int

    def tokens_at(self, now_us: int) -> int:
        return min(self.full, self.tokens + (now_us - self.at_us) * self.per_minute)

    def standing(self) -> Standing:
        """Return where the key stands at ``at_us``."""
        missing = self.full - self.tokens
        reset_s = -(-missing // (self.per_minute * 1_000_000))
        return Standing(self.full // _WHOLE, self.tokens // _WHOLE, reset_s)


def _check(bucket: _Bucket, limit: int, unit: str) -> None:
    if bucket.tokens < _WHOLE:
        wait_us = ceil_div(_WHOLE - bucket.tokens, bucket.per_minute)
        raise RateLimited(
            f"this key may make {limit} calls a {unit}",
            retry_after_s=ceil_div(wait_us, 1_000_000),
            standing=bucket.standing(),
        )
