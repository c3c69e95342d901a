"""A token bucket for each API key. Invariant: integers, bounded memory, an injected clock."""

from typing import Final, NamedTuple

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Exhausted
from chutes_core.base.units import ceil_div

MAX_BUCKETS: Final = 20_000
# One call, in sixty-millionths: at r calls a minute a bucket gains r per microsecond.
_WHOLE: Final = 60_000_000


class Standing(NamedTuple):
    """Where a key stands: calls it may make at once, how many are left, seconds until all are."""

    limit: int
    remaining: int
    reset_s: int


class RateLimited(Exhausted):
    """One call more than a key may make now; ``standing`` is the key's."""

    def __init__(
        self, code: str, message: str, *, hint: str, retry_after_s: int, standing: Standing
    ) -> None:
        super().__init__(code, message, hint=hint, retry_after_s=retry_after_s)
        self.standing = standing


class Buckets:
    """Lets ``per_s`` calls a second through for each key, and ``burst`` at once.

    A key with a limit of its own per minute may use that minute's calls at once, too; the house's
    limit holds beside it.
    """

    def __init__(self, *, per_s: int, burst: int, clock: Clock) -> None:
        self._per_minute = per_s * 60
        self._burst = burst
        self._full = burst * _WHOLE
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
        if calls_per_minute is None:
            known = self._taken(key, self._clock.monotonic_us())
            if known is not None:
                return known
        _, standing = self.take_up_to(key, 1, calls_per_minute=calls_per_minute)
        return standing

    def take_up_to(
        self, key: str, most: int, *, calls_per_minute: int | None = None
    ) -> tuple[int, Standing]:
        """Count as many calls of a key as it may make now, at least one and at most so many.

        Returns:
            How many, and where the key stands afterwards by the narrower of its limits.

        Raises:
            RateLimited: with the seconds until the next call may pass.
        """
        now_us = self._clock.monotonic_us()
        house = narrow = self._filled(key, self._per_minute, self._burst, now_us)
        own = None
        if calls_per_minute is not None:
            own = self._filled(f"own:{key}", calls_per_minute, calls_per_minute, now_us)
            narrow = own if own.tokens <= house.tokens else house
        calls = min(most, narrow.tokens // _WHOLE)
        if calls < 1:
            raise _limited(house, own)
        house.tokens -= calls * _WHOLE
        if own is not None:
            own.tokens -= calls * _WHOLE
        if len(self._buckets) > MAX_BUCKETS:
            self._forget_full(now_us)
        return calls, narrow.standing()

    async def obtain(self, key: str, *, calls_per_minute: int | None = None) -> Standing:
        """Count one call, as `take` does; in a worker this may ask for more first."""
        return self.take(key, calls_per_minute=calls_per_minute)

    def _taken(self, key: str, now_us: int) -> Standing | None:
        """Count a call of a key that the house's limit alone binds; None where `take` must."""
        known, full = self._buckets.get(key), self._full
        if known is None or known.full != full or known.per_minute != self._per_minute:
            return None
        tokens = min(full, known.tokens + (now_us - known.at_us) * known.per_minute) - _WHOLE
        if tokens < 0 or len(self._buckets) > MAX_BUCKETS:
            return None
        known.tokens, known.at_us = tokens, now_us
        reset_s = -((tokens - full) // (known.per_minute * 1_000_000))
        return Standing(full // _WHOLE, tokens // _WHOLE, reset_s)

    def _filled(self, name: str, per_minute: int, burst: int, now_us: int) -> "_Bucket":
        """Return a bucket as it is now; a changed limit counts from now on."""
        full = burst * _WHOLE
        known = self._buckets.get(name)
        if known is None:
            known = self._buckets[name] = _Bucket(full, now_us, per_minute, full)
            return known
        tokens = known.tokens + (now_us - known.at_us) * known.per_minute
        if tokens > full or tokens > known.full:
            tokens = min(full, known.full)
        known.tokens = tokens
        known.at_us, known.per_minute, known.full = now_us, per_minute, full
        return known

    def _forget_full(self, now_us: int) -> None:
        """Drop full buckets (they are as good as new ones), and if need be the oldest half."""
        used = {n: b for n, b in self._buckets.items() if b.tokens_at(now_us) < b.full}
        while len(used) > MAX_BUCKETS // 2:
            del used[next(iter(used))]
        self._buckets = used


class _Bucket:
    """What one bucket held at a moment, and how it fills; changed in place on every call."""

    __slots__ = ("at_us", "full", "per_minute", "tokens")

    def __init__(self, tokens: int, at_us: int, per_minute: int, full: int) -> None:
        self.tokens = tokens
        self.at_us = at_us
        self.per_minute = per_minute
        self.full = full

    def tokens_at(self, now_us: int) -> int:
        return min(self.full, self.tokens + (now_us - self.at_us) * self.per_minute)

    def wait_us(self) -> int:
        """Return how long after ``at_us`` a call is in the bucket again."""
        return ceil_div(max(0, _WHOLE - self.tokens), self.per_minute)

    def standing(self) -> Standing:
        """Return where the key stands at ``at_us``."""
        missing = self.full - self.tokens
        reset_s = -(-missing // (self.per_minute * 1_000_000))
        return Standing(self.full // _WHOLE, self.tokens // _WHOLE, reset_s)


def _limited(house: _Bucket, own: _Bucket | None) -> RateLimited:
    """Return the refusal by the bucket that is longer without a call."""
    empty, unit = house, "second"
    if own is not None and own.wait_us() >= house.wait_us():
        empty, unit = own, "minute"
    limit = empty.per_minute if empty is own else empty.per_minute // 60
    return RateLimited(
        "rate_limited",
        f"this key may make {limit} calls a {unit}",
        hint="wait as long as Retry-After says",
        retry_after_s=ceil_div(empty.wait_us(), 1_000_000),
        standing=empty.standing(),
    )
