"""Which port of which run may be reached, and every way to one that is open.

Path: api/routes/ports -> here -> launches/instance -> relay -> runner. Invariants: a way leads to a
declared port of a run that is running, and to nothing else; it is closed when the run leaves that
state, when its user's key ends, and when the validator stops; ways are counted, one by one.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from loguru import logger

from chutes_core.base.errors import (
    ChutesError,
    Conflict,
    Exhausted,
    NotFound,
    Unavailable,
)
from chutes_core.validator.domain.jobs import JobPort, JobRun, JobState
from chutes_core.validator.domain.launches import Launch
from chutes_core.validator.launches import instance
from chutes_core.validator.launches.instance import InstanceAddress, InstanceRefused
from chutes_core.validator.store.database import Store
from chutes_core.wire.bridge import CLOSE_S
from chutes_core.wire.connection import SealedConnection
from chutes_core.wire.frames import FrameKind
from chutes_core.wire.job import PortOrder
from chutes_core.wire.sealed_end import SealedEnd

MAX_WAYS_PER_RUN = 32
MAX_WAYS_PER_USER = 128  # so that nobody's runs keep all others out
MAX_WAYS = 512
IDLE_S = 900.0
CHECK_S = 15.0
LAST_WORDS_S = 2.0  # what a job sent just before it ended may still leave
_LISTENING_HINT = "wait until the job listens on it, on 127.0.0.1 or all addresses"

Check = Callable[[], None]
"""Raises ChutesError once the caller may not use the way any more; runs in a thread."""


class _Together:
    """A sealed connection as sealed_end sends over it."""

    def __init__(self, connection: SealedConnection) -> None:
        self._connection = connection

    async def send(self, *frames: tuple[FrameKind, bytes]) -> None:
        await self._connection.send_together(*frames)

    def abort(self) -> None:
        self._connection.abort()


@dataclass(eq=False)
class Way:
    """An open way to a port; ``over`` is set when it must end."""

    job_id: str
    port: JobPort
    end: SealedEnd
    connection: SealedConnection
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def close(self) -> None:
        """Close after what was sent has left, and not for long."""
        cutting = asyncio.get_running_loop().call_later(CLOSE_S, self.connection.abort)
        try:
            await self.connection.close()
        finally:
            cutting.cancel()


class Reach:
    """Opens ways and closes them.

    Args:
        store: of runs and launches.
        address_of: how a launch's instance is reached.
        check_s: how often an open way's right is looked at.
    """

    def __init__(
        self,
        store: Store,
        address_of: Callable[[Launch], InstanceAddress],
        *,
        check_s: float = CHECK_S,
    ) -> None:
        self._store = store
        self._address_of = address_of
        self._check_s = check_s
        self._ways: set[Way] = set()
        self._taken: Counter[str] = Counter()  # by run, those that are being opened too
        self._of_user: Counter[str] = Counter()  # likewise
        self._closed = False

    @asynccontextmanager
    async def open(self, job: JobRun, name: str, allowed: Check) -> AsyncIterator[Way]:
        """Open a way to a port of a run; cut at the end, if it was not closed before.

        Args:
            job: the caller's, as it stands.
            name: of the port.
            allowed: looked at again and again.

        Raises:
            NotFound: ``no_such_port``. Conflict: ``job_not_running``.
            Exhausted: ``too_many_port_connections`` or ``ports_full``.
            Unavailable: ``port_not_listening`` or ``port_unreachable``.
        """
        port = declared(job, name)
        self._check_room(job)
        self._taken[job.job_id] += 1
        self._of_user[job.user_id] += 1
        try:
            connection = await self._connect(job, port)
            end = SealedEnd(_Together(connection), connection.receive)
            way = Way(job.job_id, port, end, connection)
            self._ways.add(way)
            if self._closed:
                way.over.set()
            watching = asyncio.ensure_future(self._watch(way, allowed))
            try:
                yield way
            finally:
                watching.cancel()
                self._ways.discard(way)
                connection.abort()
        finally:
            _leave(self._taken, job.job_id)
            _leave(self._of_user, job.user_id)

    def close_run(self, job_id: str) -> None:
        """Close all ways to a run, which has ended, once its last words have passed."""
        loop = asyncio.get_running_loop()
        for way in self._ways:
            if way.job_id == job_id:
                loop.call_later(LAST_WORDS_S, way.over.set)

    def close(self) -> None:
        """Close all ways, and every one that is opened from now on."""
        self._closed = True
        for way in self._ways:
            way.over.set()

    @property
    def ways(self) -> int:
        """Return how many ways are open."""
        return len(self._ways)

    def _check_room(self, job: JobRun) -> None:
        if self._taken[job.job_id] >= MAX_WAYS_PER_RUN:
            raise Exhausted(
                "too_many_port_connections",
                f"{MAX_WAYS_PER_RUN} connections to ports of this run are open",
                hint="close some, or use one connection for more",
                retry_after_s=5,
            )
        if self._of_user[job.user_id] >= MAX_WAYS_PER_USER:
            raise Exhausted(
                "too_many_port_connections",
                f"{MAX_WAYS_PER_USER} connections to ports of your runs are open",
                hint="close some, or use one connection for more",
                retry_after_s=5,
            )
        if self._taken.total() >= MAX_WAYS:
            raise Exhausted(
                "ports_full",
                "the validator has as many connections to ports of jobs as it carries",
                hint="try again in a moment",
                retry_after_s=5,
            )

    async def _connect(self, job: JobRun, port: JobPort) -> SealedConnection:
        try:
            address = await asyncio.to_thread(self._address, job)
            return await instance.open_port(address, PortOrder(job_id=job.job_id, name=port.name))
        except InstanceRefused as refusal:
            raise _refused(refusal, port) from refusal
        except ChutesError as error:
            logger.info("job's port not reached", job=job.job_id, code=error.code)
            raise Unavailable(
                "port_unreachable",
                "the run's instance cannot be reached",
                hint="try again; an image that was built before ports were carried: build it anew",
            ) from error

    def _address(self, job: JobRun) -> InstanceAddress:
        launch = self._store.launches.get(job.launch_id)
        if launch is None:
            raise Unavailable("instance_lost", "the run's instance is gone", hint="run it again")
        return self._address_of(launch)

    async def _watch(self, way: Way, allowed: Check) -> None:
        """End a way whose run does not run any more, or whose user may not use it any more.

        One that cannot be looked after any more, for whatever reason, ends too.
        """
        try:
            while True:
                await asyncio.sleep(self._check_s)
                await asyncio.to_thread(self._check, way.job_id, allowed)
        except ChutesError as error:
            logger.info("way to a job's port closed", job=way.job_id, code=error.code)
        finally:
            way.over.set()

    def _check(self, job_id: str, allowed: Check) -> None:
        job = self._store.jobs.get(job_id)
        if job is None or job.state is not JobState.RUNNING:
            raise Conflict("job_not_running", "the run has ended", hint="run the job again")
        allowed()


def _leave(counted: "Counter[str]", name: str) -> None:
    counted[name] -= 1
    if not counted[name]:
        del counted[name]


def declared(job: JobRun, name: str) -> JobPort:
    """Return a port of a running run.

    Raises:
        NotFound: ``no_such_port``. Conflict: ``job_not_running``.
    """
    port = next((one for one in job.ports if one.name == name), None)
    if port is None:
        names = ", ".join(one.name for one in job.ports) or "none"
        raise NotFound(
            "no_such_port", f"the run has no port {name[:40]!r}", hint=f"it declares: {names}"
        )
    if job.state is not JobState.RUNNING:
        raise Conflict(
            "job_not_running",
            f"the run is {job.state.value}; its ports are there while it is running",
            hint=f"chutes jobs watch {job.job_id} tells each new state",
        )
    return port


def _refused(refusal: InstanceRefused, port: JobPort) -> ChutesError:
    """Return what a caller is told of an instance's refusal."""
    if refusal.code == "port_not_listening":
        text = f"nothing listens on port {port.port} of the job yet"
        return Unavailable("port_not_listening", text, hint=_LISTENING_HINT)
    if refusal.code == "too_many_port_connections":
        text = "the instance has as many connections to ports as it carries"
        return Exhausted("too_many_port_connections", text, hint="close some", retry_after_s=5)
    if refusal.code == "job_not_running":
        return Conflict("job_not_running", "the run has just ended", hint="run the job again")
    return NotFound(
        "no_such_port",
        f"the instance carries no port {port.name}",
        hint="its job declares other ports by now: run it again",
    )
