"""A worker's share of the slots of instances.

Path: admission -> `SharedRouter` -> forward. Invariant: a worker never has more calls at an
instance than slots of it were leased to it, and the main process leases no more than the instance
has; so an instance's concurrency holds over all workers.
"""

import random
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.snapshot import InstanceView
from chutes_core.validator.gateway.routing import NoSlot, Route, Router
from chutes_core.validator.gateway.workers.asking import Asking
from chutes_core.validator.gateway.workers.leases import slots_purse

TRIES = 16  # what was granted may be used by another call first


class SharedRouter(Router):
    """Routes by leased slots."""

    def __init__(self, asking: Asking, *, clock: Clock, rng: random.Random) -> None:
        super().__init__(clock=clock, rng=rng)
        self._asking = asking
        self._slots: dict[str, int] = {}
        self._used: set[str] = set()
        self._due: Counter[str] = Counter()  # granted to calls that go on in a moment, by purse

    def swap(self, instances: Mapping[str, tuple[InstanceView, ...]]) -> None:
        """Take over a new snapshot's instances; what was leased of others ends when idle."""
        super().swap(instances)
        for routes in self._routes.values():
            for route in routes.values():
                self._show(route)

    async def obtain(self, chute_id: str, excluded: Collection[str] = ()) -> Route | NoSlot:
        """Return a route with a free slot, asking for more slots where all that we have are taken.

        Raises:
            Unavailable: ``gateway_busy``.
        """
        found = self.choose(chute_id, excluded)
        for _ in range(TRIES):
            if found is not NoSlot.FULL:
                break
            purses = self._purses(chute_id, excluded)
            self._rng.shuffle(purses)
            said = await self._ask(purses)
            found = self.choose(chute_id, excluded)
            if not said["amount"]:
                break
        return found

    def enter(self, route: Route) -> None:
        """Occupy one slot of a route."""
        self._used.add(route.view.launch_id)
        super().enter(route)

    def granted(self, launch_id: str, slots: int) -> None:
        """Raise a lease."""
        self._slots[launch_id] = self._slots.get(launch_id, 0) + slots
        self._used.add(launch_id)
        self._show_launch(launch_id)

    def give_up(self, launch_id: str) -> int:
        """Return how many slots nobody uses or soon will, and give them up."""
        used = self.in_flight_of(launch_id) + self._due[slots_purse(launch_id)]
        slots = self._slots.get(launch_id, 0) - used
        if slots <= 0:
            return 0
        self._slots[launch_id] -= slots
        if not self._slots[launch_id]:
            del self._slots[launch_id]
        self._show_launch(launch_id)
        return slots

    def idle(self) -> dict[str, int]:
        """Give up what no call has used since the last time; return how much, by purse."""
        idle = [launch_id for launch_id in self._slots if launch_id not in self._used]
        self._used.clear()
        given = {slots_purse(launch_id): self.give_up(launch_id) for launch_id in idle}
        return {purse: slots for purse, slots in given.items() if slots}

    def busy(self) -> dict[str, int]:
        """Return how many calls each instance has, also one that has left the snapshot."""
        return dict(self._busy)

    async def _ask(self, purses: list[str]) -> Mapping[str, Any]:
        due: list[str] = []

        def granted(purse: str) -> None:
            due.append(purse)
            self._due[purse] += 1

        try:
            return await self._asking.ask(purses, 1, granted)
        finally:
            self._due.subtract(due)
            self._due = +self._due

    def _purses(self, chute_id: str, excluded: Collection[str]) -> list[str]:
        now_us = self._clock.monotonic_us()
        return [
            slots_purse(launch_id)
            for launch_id, route in self._routes.get(chute_id, {}).items()
            if launch_id not in excluded and route.breaker.allows(now_us)
        ]

    def _show_launch(self, launch_id: str) -> None:
        for routes in self._routes.values():
            if launch_id in routes:
                self._show(routes[launch_id])

    def _show(self, route: Route) -> None:
        leased = self._slots.get(route.view.launch_id, 0)
        route.slots = min(leased, route.view.concurrency)
