"""Connections from outside to the ports of this instance's job.

Path: session (PORT) -> `PortDesk` -> 127.0.0.1. Invariants: only a port that the running job
declares is ever dialled, on loopback, and never the runner's own; what is connected ends with the
job, a moment after it, and with the validator's connection.
"""

import asyncio
import contextlib
from collections.abc import Sequence

import anyio

from chutes_core.base.errors import ChutesError, Conflict, Exhausted, NotFound, Unavailable
from chutes_core.runner.job_socket import LINGER_S, dial
from chutes_core.runner.jobs import DeclaredPort, JobDesk
from chutes_core.runner.link import Link
from chutes_core.wire.bridge import Ended, carry
from chutes_core.wire.frames import FrameKind
from chutes_core.wire.job import PortOrder
from chutes_core.wire.sealed_end import SealedEnd

MAX_CONNECTIONS = 64
DIAL_S = 5.0
IDLE_S = 1800.0  # the validator's limit is shorter; this one is for when it forgets
LAST_WORDS_S = 2.0  # what a job sent just before it ended may still leave
LOOPBACK = "127.0.0.1"
_CARRIED = ("tcp", "http")


class PortDesk:
    """Connects the validator's connections with the job's ports.

    Args:
        jobs: knows the job.

    Attributes:
        own_port: where the runner itself listens.
    """

    def __init__(self, jobs: JobDesk) -> None:
        self._jobs = jobs
        self._open = 0
        self.own_port = 0

    async def serve(self, link: Link, order: PortOrder) -> bool:
        """Connect a connection to a port, to the end; whether it was used up by that.

        Raises:
            Unavailable: the validator is gone.
        """
        try:
            port, over = self._find(order)
            if self._open >= MAX_CONNECTIONS:
                raise Exhausted(
                    "too_many_port_connections", f"{MAX_CONNECTIONS} connections are open"
                )
        except ChutesError as refusal:
            await link.send_error(refusal)
            return False
        self._open += 1
        try:
            return await self._connect(link, port, over)
        finally:
            self._open -= 1

    async def _connect(self, link: Link, port: int, over: asyncio.Event) -> bool:
        try:
            with anyio.fail_after(DIAL_S):
                job = await dial(LOOPBACK, port)
        except OSError:  # TimeoutError is one
            refusal = Unavailable("port_not_listening", f"nothing listens on port {port} yet")
            await link.send_error(refusal)
            return False
        try:
            await link.send((FrameKind.OK, b""))
            ended = await carry(_Patient(link), job, idle_s=IDLE_S, closed=_soon_after(over))
        except BaseException:
            job.abort()
            link.abort()
            raise
        if ended is Ended.WHOLE:
            job.close()
        elif job.lost:
            await _part(link)
        else:
            link.abort()
        return True

    def _find(self, order: PortOrder) -> tuple[int, asyncio.Event]:
        declared, over = self._jobs.ports(order.job_id)
        port = _number(declared, order.name)
        if port == self.own_port:
            raise Conflict("port_taken", f"port {port} is the runner's own")
        return port, over


def _number(declared: Sequence[DeclaredPort], name: str) -> int:
    for one in declared:
        if one.name == name and one.proto in _CARRIED:
            return one.port
    raise NotFound("no_such_port", f"the job declares no port {name!r} that is carried")


class _Patient(SealedEnd):
    """The validator's side, which is not cut by the bridge but by whoever made it."""

    def __init__(self, link: Link) -> None:
        super().__init__(link, link.next_frame)

    def abort(self) -> None:
        """Leave it as it is."""


async def _part(link: Link) -> None:
    """Say that the job's side is cut, behind all that it sent, and wait for the validator to go.

    Cut at once, what is on its way would be lost with it: the validator may be sending still.
    """
    with anyio.move_on_after(LINGER_S), contextlib.suppress(ChutesError):
        await link.send_error(Unavailable("connection_lost", "the job's connection was cut"))
        while await link.next_frame() is not None:
            continue
    link.abort()


async def _soon_after(over: asyncio.Event) -> None:
    await over.wait()
    await asyncio.sleep(LAST_WORDS_S)
