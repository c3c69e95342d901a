"""A slow token bucket per caller, for registrations. Invariant: bounded memory, injected clock."""

import threading

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Exhausted
from chutes_core.base.units import ceil_div

MAX_CALLERS = 10_000


class SlowBuckets:
    """Lets ``burst`` through at once and one more every ``refill_s`` seconds, for each name."""

    def __init__(self, clock: Clock, *, burst: int, refill_s: int) -> None:
        self._clock = clock
        self._refill_us = refill_s * 1_000_000
        self._full_us = burst * self._refill_us
        self._left_us: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def take(self, name: str) -> None:
        """Count one try of ``name``.

        Raises:
            Exhausted: ``too_many_registrations``, with the seconds until the next may pass.
        """
        now_us = self._clock.monotonic_us()
        with self._lock:
            left_us = self._left(name, now_us)
            if left_us < self._refill_us:
                raise Exhausted(
                    "too_many_registrations",
                    "too many registrations from here",
                    hint="wait as long as Retry-After says",
                    retry_after_s=ceil_div(self._refill_us - left_us, 1_000_000),
                )
            self._left_us[name] = (left_us - self._refill_us, now_us)
            if len(self._left_us) > MAX_CALLERS:
                self._forget(now_us)

    def _left(self, name: str, now_us: int) -> int:
        left_us, at_us = self._left_us.get(name, (self._full_us, now_us))
        return min(self._full_us, left_us + now_us - at_us)

    def _forget(self, now_us: int) -> None:
        """Drop full buckets, and if need be the oldest half."""
        left = {n: v for n, v in self._left_us.items() if self._left(n, now_us) < self._full_us}
        while len(left) > MAX_CALLERS // 2:
            del left[next(iter(left))]
        self._left_us = left
