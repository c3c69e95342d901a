"""Who asks for which chute: counted by the gateway, read by autoscale.

Invariant: a caller is counted in exactly one of waiting and in flight while `calling` or `waiting`
is entered (or between `begin` and `end`), and leaves in every case.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from chutes_core.base.clock import Clock
from chutes_core.base.loops import Signal
from chutes_core.validator.domain.demand import ChuteDemand

FORGIVEN_S: Final = 60
"""Who waits again within this time after the last one has waited since then: it was in vain."""


class _Counts:
    """Of one chute; changed in place, for this is done twice a call."""

    __slots__ = (
        "in_flight",
        "last_call_s",
        "missed_s",
        "waited_until_s",
        "waiting",
        "waiting_since_s",
    )

    def __init__(self) -> None:
        self.last_call_s = 0
        self.in_flight = 0
        self.waiting = 0
        self.waiting_since_s = 0
        self.waited_until_s = 0
        self.missed_s = 0

    def snapshot(self) -> ChuteDemand:
        """Return them as they are now."""
        since_s = self.waiting_since_s if self.waiting else 0
        return ChuteDemand(self.last_call_s, self.in_flight, self.waiting, since_s)


class Demand:
    """Counters for each chute that was called since it is in the snapshot."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._chutes: dict[str, _Counts] = {}
        self.news = Signal()
        """Set where another number of instances may be wanted: a first waiting caller, a wish to
        have a chute hot, a new snapshot."""

    def snapshot(self) -> dict[str, ChuteDemand]:
        """Return all counters as they are now, by chute id."""
        return {chute_id: counts.snapshot() for chute_id, counts in self._chutes.copy().items()}

    def begin(self, chute_id: str) -> None:
        """Count a caller as in flight; whoever calls this calls `end`, once, in every case."""
        counts = self._chutes.get(chute_id) or self._fresh(chute_id)
        counts.last_call_s = self._clock.now_s()
        counts.in_flight += 1

    def end(self, chute_id: str) -> None:
        """Count the caller as gone."""
        counts = self._chutes.get(chute_id) or self._fresh(chute_id)
        counts.last_call_s = self._clock.now_s()
        counts.in_flight -= 1

    @contextmanager
    def calling(self, chute_id: str) -> Iterator[None]:
        """Count a caller as in flight."""
        self.begin(chute_id)
        try:
            yield
        finally:
            self.end(chute_id)

    @contextmanager
    def elsewhere(self, chute_id: str, there: str) -> Iterator[None]:
        """Count a caller, who is in flight, as in flight there instead: an alias led to it."""
        if there == chute_id:
            yield
            return
        self.end(chute_id)
        try:
            with self.calling(there):
                yield
        finally:
            self.begin(chute_id)

    @contextmanager
    def waiting(self, chute_id: str) -> Iterator[None]:
        """Count a caller, who is in flight, as waiting for an instance instead."""
        self._change(chute_id, in_flight=-1, waiting=1)
        counts = self._chutes[chute_id]
        if counts.waiting == 1:
            now_s = self._clock.now_s()
            if now_s - counts.waited_until_s > FORGIVEN_S or not counts.waiting_since_s:
                counts.waiting_since_s = now_s
            self.news.set()
        try:
            yield
        finally:
            self._change(chute_id, in_flight=1, waiting=-1)
            counts.waited_until_s = self._clock.now_s()

    def touch(self, chute_id: str) -> None:
        """Note that somebody wants the chute hot, without a call (warm-up)."""
        self._change(chute_id, in_flight=0, waiting=0)
        self.news.set()

    def missed(self, chute_id: str) -> None:
        """Note that a call went elsewhere because the chute is cold: it is wanted hot, too."""
        self._change(chute_id, in_flight=0, waiting=0)
        counts = self._chutes[chute_id]
        if counts.missed_s != counts.last_call_s:
            counts.missed_s = counts.last_call_s
            self.news.set()

    def keep(self, chute_ids: Collection[str]) -> None:
        """Forget chutes that are gone and have no caller left: a new snapshot has come."""
        self.news.set()
        self._chutes = {
            chute_id: counts
            for chute_id, counts in self._chutes.items()
            if chute_id in chute_ids or counts.in_flight or counts.waiting
        }

    def _change(self, chute_id: str, *, in_flight: int, waiting: int) -> None:
        counts = self._chutes.get(chute_id) or self._fresh(chute_id)
        counts.last_call_s = self._clock.now_s()
        counts.in_flight += in_flight
        counts.waiting += waiting

    def _fresh(self, chute_id: str) -> _Counts:
        """Return new counters of a chute that had none."""
        counts = self._chutes[chute_id] = _Counts()
        return counts
