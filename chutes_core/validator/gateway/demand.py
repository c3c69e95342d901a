"""Who asks for which chute: counted by the gateway, read by autoscale.

Invariant: a caller is counted in exactly one of waiting and in flight while `calling` or `waiting`
is entered, and leaves in every case.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.demand import ChuteDemand


class Demand:
    """Counters for each chute that was called since it is in the snapshot."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._chutes: dict[str, ChuteDemand] = {}

    def snapshot(self) -> dict[str, ChuteDemand]:
        """Return all counters as they are now, by chute id."""
        return dict(self._chutes)

    @contextmanager
    def calling(self, chute_id: str) -> Iterator[None]:
        """Count a caller as in flight."""
        self._change(chute_id, in_flight=1, waiting=0)
        try:
            yield
        finally:
            self._change(chute_id, in_flight=-1, waiting=0)

    @contextmanager
    def waiting(self, chute_id: str) -> Iterator[None]:
        """Count a caller, who is in flight, as waiting for an instance instead."""
        self._change(chute_id, in_flight=-1, waiting=1)
        try:
            yield
        finally:
            self._change(chute_id, in_flight=1, waiting=-1)

    def touch(self, chute_id: str) -> None:
        """Note that somebody wants the chute hot, without a call (warm-up)."""
        self._change(chute_id, in_flight=0, waiting=0)

    def keep(self, chute_ids: Collection[str]) -> None:
        """Forget chutes that are gone and have no caller left."""
        self._chutes = {
            chute_id: demand
            for chute_id, demand in self._chutes.items()
            if chute_id in chute_ids or demand.in_flight or demand.waiting
        }

    def _change(self, chute_id: str, *, in_flight: int, waiting: int) -> None:
        now = self._chutes.get(chute_id, ChuteDemand())
        self._chutes[chute_id] = replace(
            now,
            last_call_s=self._clock.now_s(),
            in_flight=now.in_flight + in_flight,
            waiting=now.waiting + waiting,
        )
