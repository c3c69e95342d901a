"""When the process ends: its lease, a stop order, a signal; and how.

Path: session (START, RENEW, STOP), a signal, or the watchdog -> `Lifecycle.end` -> app drains,
runs hooks, exits. Invariant: the first reason wins, and an instance whose lease has lapsed ends
itself whether or not anyone can still reach it.
"""

import asyncio
import contextlib
import math
from dataclasses import dataclass
from enum import IntEnum

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict

WATCH_S = 1.0
LAPSED_GRACE_S = 2.0


class ExitCode(IntEnum):
    """Exit statuses of the process."""

    STOPPED = 0  # STOP, SIGTERM or SIGINT
    CRASHED = 1
    BAD_SETTINGS = 2
    LEASE_LAPSED = 3
    CANNOT_LISTEN = 4


@dataclass(frozen=True)
class Ending:
    """Why the process ends, how long running calls may go on, and the most for its hooks."""

    code: ExitCode
    reason: str
    grace_s: float
    hooks_s: float = math.inf


class Lease:
    """The right to go on running.

    Args:
        first_lease_s: seconds until START must have come.
        clock: wall time for leases, monotonic time for the first one.
    """

    def __init__(self, first_lease_s: float, clock: Clock) -> None:
        self._clock = clock
        self._first_until_us = clock.monotonic_us() + round(first_lease_s * 1_000_000)
        self._until_s: int | None = None

    def begin(self, until_s: int) -> None:
        """START has come: the lease runs until a Unix time."""
        self._until_s = max(until_s, self._until_s or 0)

    def renew(self, until_s: int) -> None:
        """Prolong until a Unix time; an earlier time than the present one changes nothing.

        Raises:
            Conflict: ``not_started``.
        """
        if self._until_s is None:
            raise Conflict("not_started", "a lease is prolonged only after START")
        self._until_s = max(until_s, self._until_s)

    def lapsed(self) -> str:
        """Return why the lease is over, or an empty string."""
        if self._until_s is None:
            late = self._clock.monotonic_us() >= self._first_until_us
            return "no START came in time" if late else ""
        return "the launch lease was not renewed" if self._clock.now_s() >= self._until_s else ""


class Lifecycle:
    """Waits for the first reason to end."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self._ending: Ending | None = None
        self._decided = asyncio.Event()

    @property
    def ending(self) -> bool:
        """Tell whether the end has been decided."""
        return self._ending is not None

    def end(self, ending: Ending) -> None:
        """Decide the end; later decisions change nothing."""
        if self._ending is None:
            self._ending = ending
            self._decided.set()

    async def until_end(self, watch_s: float = WATCH_S) -> Ending:
        """Watch the lease and return the ending once it is decided."""
        while self._ending is None:
            if reason := self.lease.lapsed():
                self.end(Ending(ExitCode.LEASE_LAPSED, reason, LAPSED_GRACE_S))
                break
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._decided.wait(), watch_s)
        assert self._ending is not None
        return self._ending
