"""Tells the operator what instances tried and could not do: events, and counts for the metrics.

Path: a loop of app.py -> `AttemptWatch.look` -> log, status, metrics. Invariant: each count is told
once; a counter that began anew (rules set again, a container gone) is never told as less than none.
"""

from collections.abc import Callable, Mapping

from loguru import logger

from chutes_core.base.errors import ChutesError
from chutes_core.engine.attempts import dropped_packets, limits_hit
from chutes_core.engine.run import Containers

Seen = Mapping[tuple[str, str], int]
"""(kind, launch id or nothing) -> the kernel's count."""


class AttemptWatch:
    """Follows the kernel's counters; `counts` is what was told so far, by kind."""

    def __init__(self, read: Callable[[], Seen]) -> None:
        self._read = read
        self._last: dict[tuple[str, str], int] = {}
        self.counts: dict[str, int] = {}

    def look(self) -> None:
        """Read the counters and tell what is new. Sync: called in a thread."""
        now = self._read()
        for (kind, launch_id), count in now.items():
            before = self._last.get((kind, launch_id), 0)
            new = count - before if count >= before else count
            if new > 0:
                self.counts[kind] = self.counts.get(kind, 0) + new
                logger.bind(code="walls_tried", kind=kind, launch_id=launch_id, count=new).warning(
                    "an instance tried what it may not do, and was refused"
                )
        self._last = dict(now)


def read_containers(containers: Containers, mark: str) -> Seen:
    """Return the counters of a miner's firewall rules and of its containers."""
    found = {(kind, ""): count for kind, count in dropped_packets(mark).items()}
    try:
        running = list(containers.all())
    except ChutesError:  # a silent engine is told by the runtime
        running = []
    for one in running:
        for kind, count in limits_hit(one.container_id).items():
            found[kind, one.launch_id] = count
    return found


def read_nothing() -> Seen:
    """Return nothing: processes have no walls."""
    return {}
