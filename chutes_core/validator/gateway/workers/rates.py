"""A worker's share of the calls that each key may make in a time.

Path: admission -> `SharedBuckets`; the buckets themselves are the main process's, which gives calls
out in slices: small ones to who makes few calls, larger ones while they are used up quickly, so
that a busy worker asks some ten times a second, before it has none left. Invariant: a worker never
has more calls of a key than `GivenOut.most`, and drops those that it does not use within SLICE_US;
so over any time a key makes at most its burst, its rate times that time, and one slice for each
worker.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chutes_core.base.clock import Clock
from chutes_core.validator.gateway.buckets import MAX_BUCKETS, Buckets, RateLimited, Standing
from chutes_core.validator.gateway.workers.asking import Asking, answer

SLICE_US = 1_000_000
FIRST_SLICE = 16
MAX_SLICE = 1024
AHEAD_US = SLICE_US // 4  # a slice is what was used in so long, as far as it may be
NOWHERE = Standing(0, 0, 0)


@dataclass(slots=True)
class _Slice:
    """Calls that a key may make here.

    ``size`` is how many these were with the last that came, ``want`` how many are asked for next,
    ``standing`` the key's when they were given out; ``asked`` until an answer comes, ``waiting``
    whoever needs it.
    """

    calls: int = 0
    until_us: int = 0
    size: int = 0
    want: int = FIRST_SLICE
    standing: Standing = NOWHERE
    asked: bool = False
    waiting: "list[asyncio.Future[Mapping[str, Any]]]" = field(default_factory=list)

    def adapt(self, now_us: int) -> None:
        """Want what is used of the last slice, as if it had lasted AHEAD_US."""
        lasted_us = max(1, now_us - (self.until_us - SLICE_US))
        used = (self.size - self.calls) * AHEAD_US // lasted_us
        self.want = max(FIRST_SLICE, min(used, 2 * self.want, MAX_SLICE))


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
        now_us = self._clock.monotonic_us()
        if one is None or not one.calls or one.until_us <= now_us:
            standing = NOWHERE if one is None else one.standing
            raise _limited("more calls have to be asked for first", 1, standing)
        one.calls = left = one.calls - 1
        if 2 * left < one.size and not one.asked:
            self._ask(key, one, calls_per_minute, left)
        limit, remaining, reset_s = one.standing
        return Standing(limit, remaining + left, reset_s)

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
                pass  # no waiting in here: compiled, what is caught stays caught meanwhile, for all
            said = await self._more(key, calls_per_minute)
            if not said["calls"]:
                standing = Standing(*said["standing"])
                raise _limited(said["message"], said["retry_after_s"], standing)

    def granted(self, said: Mapping[str, Any]) -> None:
        """Add what the main process gives out, and tell whoever waits for it."""
        now_us = self._clock.monotonic_us()
        one = self._slices.setdefault(said["key"], _Slice())
        one.asked = False
        if said["calls"]:
            kept = one.calls if one.until_us > now_us else 0
            one.calls = one.size = kept + said["calls"]
            one.until_us = now_us + SLICE_US
            one.standing = Standing(*said["standing"])
        for waiting in one.waiting:
            if not waiting.done():
                waiting.set_result(said)
        if len(self._slices) > MAX_BUCKETS:
            self._slices = {k: v for k, v in self._slices.items() if v.until_us > now_us or v.asked}

    def _ask(self, key: str, one: _Slice, calls_per_minute: int | None, has: int) -> None:
        one.asked = True
        one.adapt(self._clock.monotonic_us())
        self._asking.take_soon(key, calls_per_minute, want=one.want, has=has)

    async def _more(self, key: str, calls_per_minute: int | None) -> Mapping[str, Any]:
        """Return the next answer about a key: one question serves all who need it.

        Raises:
            Unavailable: ``gateway_busy``.
        """
        one = self._slices.setdefault(key, _Slice())
        if not one.asked:
            self._ask(key, one, calls_per_minute, 0)
        waiting: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        one.waiting.append(waiting)
        try:
            return await answer(waiting)
        finally:
            one.waiting.remove(waiting)


class GivenOut:
    """The main process's side: the buckets, and the size of a slice."""

    def __init__(self, *, per_s: int, burst: int, workers: int, clock: Clock) -> None:
        self._buckets = Buckets(per_s=per_s, burst=burst, clock=clock)
        self._burst = burst
        self._workers = workers

    def most(self, calls_per_minute: int | None) -> int:
        """Return how many calls of a key a worker may have: together an eighth of its burst."""
        limit = min(self._burst, calls_per_minute or self._burst)
        return max(1, min(MAX_SLICE, limit // (8 * self._workers)))

    def take(
        self, key: str, calls_per_minute: int | None, *, want: int, has: int
    ) -> dict[str, object]:
        """Count a slice of calls of a key, as far as it has them.

        Args:
            key: its id.
            calls_per_minute: the key's own limit.
            want: how many the worker can use.
            has: how many it has.
        """
        size = max(1, min(want, self.most(calls_per_minute) - has))
        try:
            calls, standing = self._buckets.take_up_to(key, size, calls_per_minute=calls_per_minute)
        except RateLimited as error:
            said = _slice(key, 0, error.standing)
            return said | {"message": error.message, "retry_after_s": error.retry_after_s}
        return _slice(key, calls, standing)


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
