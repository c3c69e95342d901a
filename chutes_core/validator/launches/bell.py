"""Tells waiting miners that more is wanted than before, so that none finds out at its next poll.

Path: demand (a caller waits, a new snapshot) -> `look`, a loop's call -> `listen`, in which a
miner's GET /miner/wake waits. Invariants: a miner holds one place, its newest; every wait is
bounded; and what a miner learns here is a number alone: what is wanted, it asks as always.
"""

import asyncio
import secrets
from collections.abc import Callable

from chutes_core.base.loops import Signal
from chutes_core.validator.launches.wanted import Wanted

SPACING_S = 0.1
"""The least time between two looks: under traffic every settlement is news."""
_LOOK_S = 5.0
MAX_WAIT_S = 30.0


class Bell:
    """Counts how often more came to be wanted.

    Args:
        wanted: what is looked at.
        news: set where that may have changed.
        now_s: Unix time.
    """

    def __init__(self, wanted: Wanted, news: Signal, now_s: Callable[[], int]) -> None:
        self._wanted = wanted
        self._news = news
        self._now_s = now_s
        self._missing: dict[tuple[str, str], int] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._closed = False
        self.number = 1 + secrets.randbelow(1 << 40)  # no miner takes a restart for no news
        """How often it rang."""

    async def look(self) -> None:
        """Wait for news, and ring where more is wanted than at the last look."""
        if not await self._news.wait(_LOOK_S):
            return
        listed = await asyncio.to_thread(self._wanted.listed, self._now_s())
        missing = {(chute.chute_id, chute.version): chute.missing for chute in listed}
        more = any(count > self._missing.get(key, 0) for key, count in missing.items())
        self._missing = missing
        if more:
            self.number += 1
            self._release()

    async def listen(self, hotkey: str, after: int, wait_s: float) -> int:
        """Return the number once it is another than ``after``, or when the time is over."""
        if after != self.number or self._closed:
            return self.number
        place = asyncio.get_running_loop().create_future()
        if before := self._waiting.get(hotkey):
            _let_go(before)
        self._waiting[hotkey] = place
        try:
            await asyncio.wait({place}, timeout=min(wait_s, MAX_WAIT_S))
        finally:
            if self._waiting.get(hotkey) is place:
                del self._waiting[hotkey]
        return self.number

    def close(self) -> None:
        """Answer everybody, and from now on at once: the validator ends."""
        self._closed = True
        self._release()

    def _release(self) -> None:
        for place in self._waiting.values():
            _let_go(place)


def _let_go(place: "asyncio.Future[None]") -> None:
    if not place.done():
        place.set_result(None)
