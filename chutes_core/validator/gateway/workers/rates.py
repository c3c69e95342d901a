"""A worker's share of the calls that each key may make in a time.

Path: admission -> `SharedBuckets`; the buckets themselves are the main process's, which gives calls
out in slices. Invariant: a slice is used within SLICE_US or dropped, so that over any time a key
makes at most its burst, its rate times that time, and one slice for each worker.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Exhausted
from chutes_core.validator.gateway.buckets import MAX_BUCKETS, Buckets, RateLimited, Standing
from chutes_core.validator.gateway.workers.asking import Asking

SLICE_US = 1_000_000
MAX_SLICE = 16
NOWHERE = Standing(0, 0, 0)


@dataclass(slots=True)
class _Slice:
    """Calls that a key may make here; ``standing`` is the key's when it was given out."""

    calls: int = 0
    until_us: int = 0
    size: int = 0
    standing: Standing = NOWHERE
    asked: bool = False


class SharedBuckets(Buckets):
    """The buckets of a worker."""

    def __init__(self, asking: Asking, clock: Clock) -> None:
        super().__init__(per_s=1, burst=1, clock=clock)
        self._asking = asking
        self._slices: dict[str, _Slice] = {}

    def take(self, key: str, *, calls_per_minute: int | None = None) -> Standing:
        """Count one call of a key.

        Raises:
            RateLimited: the slice is used up (`obtain` asks for another).
        """
        one = self._slices.get(key)
        if one is None or not one.calls or one.until_us <= self._clock.monotonic_us():
            standing = NOWHERE if one is None else one.standing
            raise _limited("more calls have to be asked for first", 1, standing)
        one.calls -= 1
        if 2 * one.calls < one.size and not one.asked:
            one.asked = True
            self._asking.take_soon(key, calls_per_minute)
        standing = one.standing
        return standing._replace(remaining=standing.remaining + one.calls)

    async def obtain(self, key: str, *, calls_per_minute: int | None = None) -> Standing:
        """Count one call of a key, asking for it where the slice is used up.

        Raises:
            RateLimited: with the seconds until the next call may pass.
            Unavailable: ``gateway_busy``.
        """
        while True:
            try:
                return self.take(key, calls_per_minute=calls_per_minute)
            except RateLimited:
                said = await self._asking.take(key, calls_per_minute)
                if not said["calls"]:
                    standing = Standing(*said["standing"])
                    raise _limited(said["message"], said["retry_after_s"], standing) from None

    def granted(self, said: Mapping[str, Any]) -> None:
        """Add what the main process gives out; an old slice that is over is dropped."""
        now_us = self._clock.monotonic_us()
        one = self._slices.setdefault(said["key"], _Slice())
        one.asked = False
        if not said["calls"]:
            return
        kept = one.calls if one.until_us > now_us else 0
        one.calls, one.size = kept + said["calls"], said["calls"]
        one.until_us = now_us + SLICE_US
        one.standing = Standing(*said["standing"])
        if len(self._slices) > MAX_BUCKETS:
            self._slices = {k: v for k, v in self._slices.items() if v.until_us > now_us}


class GivenOut:
    """The main process's side: the buckets, and the size of a slice."""

    def __init__(self, *, per_s: int, burst: int, workers: int, clock: Clock) -> None:
        self._buckets = Buckets(per_s=per_s, burst=burst, clock=clock)
        self._burst = burst
        self._workers = workers

    def take(self, key: str, calls_per_minute: int | None) -> dict[str, object]:
        """Count a slice of calls of a key, as far as it has them."""
        limit = min(self._burst, calls_per_minute or self._burst)
        size = max(1, min(MAX_SLICE, limit // (8 * self._workers)))
        standing = NOWHERE
        for calls in range(size):
            try:
                standing = self._buckets.take(key, calls_per_minute=calls_per_minute)
            except Exhausted as error:
                if calls:
                    return _slice(key, calls, standing)
                limited = error.standing if isinstance(error, RateLimited) else standing
                said = _slice(key, 0, limited)
                return said | {"message": error.message, "retry_after_s": error.retry_after_s}
        return _slice(key, size, standing)


def _limited(message: str, retry_after_s: int, standing: Standing) -> RateLimited:
    return RateLimited(
        "rate_limited",
        message,
        hint="wait as long as Retry-After says",
        retry_after_s=retry_after_s,
        standing=standing,
    )


def _slice(key: str, calls: int, standing: Standing) -> dict[str, object]:
    return {"key": key, "calls": calls, "standing": list(standing)}
