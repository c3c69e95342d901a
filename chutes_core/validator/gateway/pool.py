"""Sealed connections to instances, kept open between calls.

Path: routing -> pool -> forward. Invariant: a connection carries one call at a time; only one whose
last call ended cleanly comes back; a connection of an instance that left the snapshot is closed.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.snapshot import InstanceView
from chutes_core.wire.connection import open_connection
from chutes_core.wire.frames import Frame, FrameKind
from chutes_core.wire.sealing import PROVEN


class Carrier(Protocol):
    """A sealed connection: wire/connection's on streams, or plane/link's."""

    @property
    def usable(self) -> bool:
        """Tell whether it looks alive: the peer has neither closed nor spoken."""
        ...

    async def send(self, kind: FrameKind, payload: bytes = b"") -> None:
        """Send one frame."""
        ...

    async def send_together(self, *frames: tuple[FrameKind, bytes]) -> None:
        """Send several frames in one write."""
        ...

    async def receive(self, timeout_s: float | None = None) -> Frame:
        """Return the next frame."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


Opening = Callable[[InstanceView, float], Awaitable[Carrier]]


class Borrowed:
    """A connection for one call; ``reused`` ones may have died unseen.

    ``since_us``: since when it idles, while it does.
    """

    __slots__ = ("connection", "launch_id", "reused", "since_us")

    def __init__(self, connection: Carrier, launch_id: str, reused: bool) -> None:
        self.connection = connection
        self.launch_id = launch_id
        self.reused = reused
        self.since_us = 0


class Pool:
    """Idle connections by launch, newest used first."""

    def __init__(
        self,
        *,
        clock: Clock,
        connect_timeout_s: float,
        max_idle_per_instance: int,
        idle_s: float,
        opening: Opening | None = None,
    ) -> None:
        self._clock = clock
        self._connect_timeout_s = connect_timeout_s
        self._max_idle = max_idle_per_instance
        self._idle_us = round(idle_s * 1_000_000)
        self._open = opening or _open
        self._idle: dict[str, list[Borrowed]] = {}
        self._known: frozenset[str] = frozenset()

    async def borrow(self, view: InstanceView, *, fresh: bool = False) -> Borrowed:
        """Return a connection to an instance: an idle one unless ``fresh``, else a new one.

        Raises:
            Unavailable: it cannot be reached.
        """
        if fresh:
            self._drop(view.launch_id)
        idle = self.idle(view.launch_id)
        if idle is not None:
            return idle
        connection = await self._open(view, self._connect_timeout_s)
        return Borrowed(connection, view.launch_id, reused=False)

    def idle(self, launch_id: str) -> Borrowed | None:
        """Return an idle connection to an instance, if there is one."""
        idle = self._idle.get(launch_id)
        if not idle:
            return None
        too_old_us = self._clock.monotonic_us() - self._idle_us
        while idle:
            borrowed = idle.pop()
            if borrowed.since_us >= too_old_us and borrowed.connection.usable:
                borrowed.reused = True
                return borrowed
            borrowed.connection.abort()
        return None

    def give_back(self, borrowed: Borrowed) -> None:
        """Keep a connection whose call ended cleanly."""
        if borrowed.launch_id not in self._known or not borrowed.connection.usable:
            borrowed.connection.abort()
            return
        idle = self._idle.get(borrowed.launch_id)
        if idle is None:
            idle = self._idle[borrowed.launch_id] = []
        borrowed.since_us = self._clock.monotonic_us()
        idle.append(borrowed)
        if len(idle) > self._max_idle:
            idle.pop(0).connection.abort()

    def swap(self, launch_ids: Collection[str]) -> None:
        """Close what leads to other launches than these, and what has idled too long."""
        self._known = frozenset(launch_ids)
        for launch_id in [one for one in self._idle if one not in self._known]:
            self._drop(launch_id)
        too_old_us = self._clock.monotonic_us() - self._idle_us
        for idle in self._idle.values():
            while idle and idle[0].since_us < too_old_us:
                idle.pop(0).connection.abort()

    def close(self) -> None:
        """Close every idle connection."""
        self.swap(())

    def _drop(self, launch_id: str) -> None:
        for borrowed in self._idle.pop(launch_id, []):
            borrowed.connection.abort()


async def _open(view: InstanceView, timeout_s: float) -> Carrier:
    return await open_connection(
        view.host,
        view.port,
        root=view.root,
        ticket=view.ticket,
        launch_id=view.launch_id,
        generation=PROVEN,
        timeout_s=timeout_s,
    )
