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
        self._size = 0

    @property
    def size(self) -> int:
        """Return how many callers wait."""
        return self._size

    async def wait(self, chute_id: str, timeout_s: float, *others: str) -> bool:
        """Wait for a wake-up, of this chute or of others; False if none came in time.

        Raises:
            Exhausted: ``queue_full``.
        """
        waiting = len(self._waiters.get(chute_id, ()))
        if waiting >= self._per_chute or self._size >= self._in_all:
            raise Exhausted(
                "queue_full",
                "too many callers wait for this chute to start",
                hint="warm it up first (chutes warmup), or call again later",
                retry_after_s=10,
            )
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for one in (chute_id, *others):
            self._waiters.setdefault(one, deque()).append(woken)
        self._size += 1
        try:
            await asyncio.wait((woken,), timeout=max(timeout_s, 0.0))
            return woken.done()
        finally:
            self._size -= 1
            for one in (chute_id, *others):
                self._leave(one, woken)

    def _leave(self, chute_id: str, woken: "asyncio.Future[None]") -> None:
        waiters = self._waiters[chute_id]
        waiters.remove(woken)
        if not waiters:
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
