"""Waiting until an instance that gets no new calls has finished those it has.

Path: lights -> here. A light challenge needs an instance without calls, so a long stream on one's
own instance would be a way around it. The gateway cuts every call at `longest_call_s`; so whoever
had calls too often when it was to be challenged is waited for so long, out of routing all the time:
then it has none, or something is wrong with it.

Invariant: an instance cannot put its challenge off for ever, and one that merely serves long
streams pays for it with an absence of at most the longest call.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.validator.launches.admissions import FRESH_TRIES, HOUR_S
from chutes_core.validator.launches.ports import InFlight

DRAIN_S = 120.0
DRAIN_POLL_S = 0.1
Sleep = Callable[[float], Awaitable[None]]


class Drains:
    """Waits for paused instances.

    Args:
        in_flight: how many calls an instance has.
        clock: of the hour in which patience is counted.
        longest_call_s: no call lasts longer.
        sleep: a test's to replace.
    """

    def __init__(
        self,
        *,
        in_flight: InFlight,
        clock: Clock,
        longest_call_s: float,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._in_flight = in_flight
        self._clock = clock
        self._longest_call_s = longest_call_s
        self._sleep = sleep
        self._missed: dict[str, list[int]] = defaultdict(list)
        self._overdue: set[str] = set()

    def patience_s(self, launch_id: str) -> float:
        """Return how long an instance is waited for: longer where it was not quiet too often."""
        often = len(self._recent(launch_id)) >= FRESH_TRIES
        return DRAIN_S + (self._longest_call_s if often else 0)

    async def quiet(self, launch_id: str, *, others_wait: bool = False) -> bool:
        """Wait until a paused instance has no call; False where its time is over.

        Where others are paused meanwhile nobody is waited for longer than `DRAIN_S`.
        """
        patience_s = DRAIN_S if others_wait else self.patience_s(launch_id)
        for _ in range(int(patience_s / DRAIN_POLL_S)):
            if not self._in_flight(launch_id):
                return True
            await self._sleep(DRAIN_POLL_S)
        self._missed[launch_id].append(self._clock.now_s())
        if patience_s >= self._longest_call_s + DRAIN_S:
            self._overdue.add(launch_id)
        logger.warning(
            "instance did not drain for its challenge", launch=launch_id, waited_s=patience_s
        )
        return False

    def overdue(self, launch_id: str) -> bool:
        """Tell whether an instance was not quiet although no call can have lasted so long."""
        return launch_id in self._overdue

    def proven(self, launch_id: str) -> None:
        """Forget what was missed: it was challenged."""
        self._missed.pop(launch_id, None)
        self._overdue.discard(launch_id)

    def forget(self, alive: set[str]) -> None:
        """Drop what is known of launches that have ended."""
        for launch_id in self._missed.keys() - alive:
            del self._missed[launch_id]
        self._overdue &= alive

    def _recent(self, launch_id: str) -> list[int]:
        since_s = self._clock.now_s() - HOUR_S
        return [at for at in self._missed.get(launch_id, ()) if at > since_s]
