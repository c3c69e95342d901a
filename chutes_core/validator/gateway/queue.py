"""Callers of a cold chute wait here, bounded in number and time, until an instance appears.

Invariant: every waiter leaves, woken in the order in which they came or at its deadline.
"""

import asyncio
from collections import deque

from chutes_core.base.errors import Exhausted


class ColdQueue:
    """Waiters by chute."""

    def __init__(self, *, per_chute: int, in_all: int) -> None:
        self._per_chute = per_chute
        self._in_all = in_all
        self._waiters: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def size(self) -> int:
        """Return how many callers wait."""
        return sum(map(len, self._waiters.values()))

    async def wait(self, chute_id: str, timeout_s: float) -> bool:
        """Wait for a wake-up; False if none came in time.

        Raises:
            Exhausted: ``queue_full``.
        """
        waiters = self._waiters.setdefault(chute_id, deque())
        if len(waiters) >= self._per_chute or self.size >= self._in_all:
            raise Exhausted(
                "queue_full",
                "too many callers wait for this chute to start",
                hint="warm it up first (chutes warmup), or call again later",
                retry_after_s=10,
            )
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters.append(woken)
        try:
            await asyncio.wait((woken,), timeout=max(timeout_s, 0.0))
            return woken.done()
        finally:
            waiters.remove(woken)
            if not waiters and self._waiters.get(chute_id) is waiters:
                del self._waiters[chute_id]

    def wake(self, chute_id: str, count: int) -> None:
        """Wake the ``count`` callers who have waited longest."""
        for woken in self._waiters.get(chute_id, ()):
            if count <= 0:
                return
            if not woken.done():
                woken.set_result(None)
                count -= 1

    def waiting_for(self) -> tuple[str, ...]:
        """Return the chutes that somebody waits for."""
        return tuple(self._waiters)
