"""Which instance answers a call: the better of two random ones with a free slot.

Path: admission -> routing -> forward. Better means less load for its speed: (in flight + 1) per
slot, times the smoothed time to the first byte, times a penalty for failures (power of two choices:
Mitzenmacher, IEEE TPDS 12(10), 2001). Invariant: an instance's in-flight count never exceeds its
concurrency, and rises and falls by `enter` and `leave` alone (`using` pairs them).
"""

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Final

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.snapshot import InstanceView
from chutes_core.validator.gateway.affinity import first_of
from chutes_core.validator.gateway.breaker import Breaker

SMOOTHING: Final = 0.2
ERROR_WEIGHT: Final = 10.0
AFFINITY_SLACK = 3.0  # what a warm prefix cache is worth
AFFINITY_FLOOR_US: Final = 50_000.0


_NONE: Mapping[str, "Route"] = {}


class NoSlot(Enum):
    """Why no instance can take a call now."""

    COLD = "there is no instance"
    FULL = "all instances are at capacity"
    BROKEN = "all instances fail"


class Route:
    """One instance as the gateway has come to know it."""

    def __init__(self, view: InstanceView) -> None:
        self.view = view
        self.in_flight = 0
        self.latency_us: float | None = None
        self.errors = 0.0
        self.breaker = Breaker()
        self.slots: int | None = None  # of a worker that shares the instance with others

    def has_slot(self) -> bool:
        """Tell whether one more call fits."""
        return self.in_flight < (self.view.concurrency if self.slots is None else self.slots)

    def succeeded(self, first_byte_us: int) -> None:
        """Note an answer and how long its first byte took."""
        before = first_byte_us if self.latency_us is None else self.latency_us
        self.latency_us = before + SMOOTHING * (first_byte_us - before)
        if self.errors:
            self.errors -= SMOOTHING * self.errors
        if self.breaker.troubled:
            self.breaker.succeeded()

    def failed(self, now_us: int) -> None:
        """Note a call that got no answer."""
        self.errors += SMOOTHING * (1.0 - self.errors)
        self.breaker.failed(now_us)

    def cost(self, default_latency_us: float, floor_us: float = 1.0) -> float:
        """Return how bad a choice this is; an instance never tried counts as fast as its rival.

        Differences of latency far below ``floor_us`` do not count.
        """
        latency_us = default_latency_us if self.latency_us is None else self.latency_us
        load = (self.in_flight + 1) / self.view.concurrency
        return load * (latency_us + floor_us) * (1.0 + ERROR_WEIGHT * self.errors)


class Router:
    """All routes; `swap` keeps what is known of instances that stay."""

    def __init__(self, *, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._routes: dict[str, dict[str, Route]] = {}
        self._busy: Counter[str] = Counter()

    def swap(self, instances: Mapping[str, tuple[InstanceView, ...]]) -> None:
        """Take over a new snapshot's instances."""
        self._routes = {
            chute_id: {view.launch_id: self._route(chute_id, view) for view in views}
            for chute_id, views in instances.items()
            if views
        }

    def choose(self, chute_id: str, excluded: Collection[str] = ()) -> Route | NoSlot:
        """Return the route for a call, or why there is none.

        ``excluded`` names launches that this call has tried already.
        """
        routes = self._routes.get(chute_id, _NONE)
        if len(routes) == 1 and not excluded:
            (route,) = routes.values()
            if not route.breaker.tripped:
                return route if route.has_slot() else NoSlot.FULL
        found: NoSlot = NoSlot.COLD
        free: list[Route] = []
        now_us: int | None = None
        for launch_id, route in routes.items():
            if launch_id in excluded:
                continue
            if route.breaker.tripped:
                now_us = self._clock.monotonic_us() if now_us is None else now_us
                if not route.breaker.allows(now_us):
                    found = NoSlot.BROKEN if found is NoSlot.COLD else found
                    continue
            found = NoSlot.FULL
            if route.has_slot():
                free.append(route)
        return self._better(free) if free else found

    async def obtain(self, chute_id: str, excluded: Collection[str] = ()) -> Route | NoSlot:
        """Choose, as `choose` does; a worker asks for more slots before it says FULL."""
        return self.choose(chute_id, excluded)

    @contextmanager
    def using(self, route: Route) -> Iterator[None]:
        """Occupy one slot of a route."""
        self.enter(route)
        try:
            yield
        finally:
            self.leave(route)

    def enter(self, route: Route) -> None:
        """Occupy one slot of a route; whoever calls this calls `leave`, once, in every case."""
        route.in_flight += 1
        busy, launch_id = self._busy, route.view.launch_id
        busy[launch_id] = busy.get(launch_id, 0) + 1
        if route.breaker.tripped:
            route.breaker.begin()

    def leave(self, route: Route) -> None:
        """Give the slot back."""
        route.in_flight -= 1
        busy, launch_id = self._busy, route.view.launch_id
        left = busy[launch_id] - 1
        if left:
            busy[launch_id] = left
        else:
            del busy[launch_id]
        if route.breaker.tripped:
            route.breaker.end()

    def preferred(
        self, chute_id: str, prefix: bytes, excluded: Collection[str] = ()
    ) -> Route | None:
        """Return the route that calls with this prefix go to, if it is free and not too slow.

        None where two choices do better: another instance with a free slot costs less than a
        `AFFINITY_SLACK`-th.
        """
        routes = self._routes.get(chute_id, {})
        now_us = self._clock.monotonic_us()
        well = [
            launch_id
            for launch_id, route in routes.items()
            if launch_id not in excluded and route.breaker.allows(now_us)
        ]
        if len(well) < 2:
            return None
        mine = routes[first_of(prefix, well)]
        if not mine.has_slot():
            return None
        known = [r.latency_us for r in map(routes.__getitem__, well) if r.latency_us is not None]
        default = min(known, default=0.0)
        least = min(
            routes[one].cost(default, AFFINITY_FLOOR_US) for one in well if routes[one].has_slot()
        )
        cost = mine.cost(default, AFFINITY_FLOOR_US)
        return mine if cost <= AFFINITY_SLACK * least else None

    def in_flight(self) -> int:
        """Return how many slots are taken in all, of instances in the snapshot."""
        return sum(r.in_flight for routes in self._routes.values() for r in routes.values())

    def broken(self) -> int:
        """Return how many instances in the snapshot are left alone because they fail."""
        now_us = self._clock.monotonic_us()
        routes = (route for by_id in self._routes.values() for route in by_id.values())
        return sum(not route.breaker.allows(now_us) for route in routes)

    def in_flight_of(self, launch_id: str) -> int:
        """Return how many calls an instance has, also one that has left the snapshot."""
        return self._busy[launch_id]

    def _route(self, chute_id: str, view: InstanceView) -> Route:
        known = self._routes.get(chute_id, {}).get(view.launch_id)
        if known is None:
            return Route(view)
        known.view = view
        return known

    def _better(self, free: list[Route]) -> Route:
        if len(free) == 1:
            return free[0]
        one, two = self._rng.sample(free, 2)
        known = [r.latency_us for r in (one, two) if r.latency_us is not None]
        default = known[0] if known else 0.0
        return one if one.cost(default) <= two.cost(default) else two
