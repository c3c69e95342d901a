"""The main process's side of gateway workers: starts, tells, counts for and buries them.

Path: Pictures -> `swap` -> every worker; a worker's questions -> `leases`, `rates`; its journal ->
settlement. It stands where a Gateway stands in a validator of one process. Invariants: a picture
counts as swapped once every living worker decides by it (one that does not in time is killed); a
dead worker's money is leased again only after its journal was settled; what is asked of a worker
that died is answered by nobody.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError
from chutes_core.base.loops import Loops
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.validator.domain.snapshot import Snapshot
from chutes_core.validator.gateway.asgi import AsgiApp
from chutes_core.validator.gateway.holds import Holds, Spending
from chutes_core.validator.gateway.workers.channel import Kind, connect
from chutes_core.validator.gateway.workers.journals import JournalFiles, Journals, Settle
from chutes_core.validator.gateway.workers.leases import Leases
from chutes_core.validator.gateway.workers.lending import Lending
from chutes_core.validator.gateway.workers.member import Member
from chutes_core.validator.gateway.workers.picture import encode
from chutes_core.validator.gateway.workers.process import died, spawn
from chutes_core.validator.gateway.workers.rates import GivenOut
from chutes_core.validator.gateway.workers.setup import Setup
from chutes_core.validator.gateway.workers.sums import DemandSum, Sums

SHOWN_S = 15.0  # to decide by a new picture; a worker that takes longer is killed
HUNG_S = 30.0  # a worker that says nothing for so long is killed
LOOK_S = 1.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 10.0
START_TRIES = 5  # of a worker that ends without a word before it ever served
STEADY_S = 60.0  # who lived so long is started again after the first pause
END_S = 5.0  # beyond the grace


class Crew:
    """All workers of this validator.

    Args:
        setup: what they have in common.
        control: the ASGI application for everything that is no invocation.
        noted: told of a worker's end by its name and an error; of its start by None.
        clock, start: a test's to replace; `start` begins a process at the other end of a channel.

    Attributes:
        demand: callers by chute, of all workers together.
        journals: all of theirs.
        ready: set once all serve.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        control: AsgiApp,
        clock: Clock,
        noted: Callable[[str, Exception | None], None] | None = None,
        start: Callable[[socket.socket], Awaitable[asyncio.subprocess.Process]] = spawn,
    ) -> None:
        self.demand = DemandSum(clock, lambda: [one.demand for one in self._living()])
        self.journals = Journals(Path(setup.journal_folder))
        self.ready = asyncio.Event()
        self.started = False
        self._setup = setup
        self._control = control
        self._start = start
        self._noted = noted or (lambda name, error: None)
        self._holds = Holds()
        self.leases = Leases(self._holds, setup.workers)
        rates = GivenOut(
            per_s=setup.limits.key_calls_per_s,
            burst=setup.limits.key_burst,
            workers=setup.workers,
            clock=clock,
        )
        self._lending = Lending(self.leases, rates, members=self._living, run=self._run)
        self._loops = Loops(self._noted)
        self._members: dict[str, Member] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._were_ready: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._sums = Sums()
        self._snapshot = Snapshot()
        self._clock = clock
        self._swapped_us = clock.monotonic_us()
        self._version = 0
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Future[None]] = set()
        self._drain: Settle = lambda journal: 0
        self._refresh: Callable[[], Awaitable[None]] = asyncio.Event().wait  # type: ignore[assignment]
        self._address = ("", 0)
        self.names = tuple(f"gateway-{number + 1}" for number in range(setup.workers))
        folder = Path(setup.journal_folder)
        self._files = {
            name: JournalFiles(folder / name, name, seen=self.leases.charged) for name in self.names
        }
        for files in self._files.values():
            self.journals.add(files)

    def bind(self, drain: Settle, refresh: Callable[[], Awaitable[None]]) -> None:
        """Take what settles a journal and what makes a new picture; before `serve`."""
        self._drain, self._refresh = drain, refresh

    # As a Gateway.

    async def swap(self, snapshot: Snapshot) -> None:
        """Return once every living worker decides by this snapshot."""
        version = self._version + 1
        changes = await asyncio.to_thread(encode, self._snapshot, snapshot, version)
        self._version, self._snapshot = version, snapshot
        self._swapped_us = self._clock.monotonic_us()
        self.leases.swap(snapshot)
        self.demand.keep(snapshot.chutes.keys())
        told = [member for member in self._members.values() if member.joined]
        shown = [asyncio.ensure_future(member.show(version, changes)) for member in told]
        if not shown:
            return
        await asyncio.wait(shown, timeout=SHOWN_S)
        for member, one in zip(told, shown, strict=True):
            if not one.done():
                one.cancel()
                logger.error(
                    "Gateway worker killed: it decides by an old picture", name=member.name
                )
                self._kill(member.name)

    def spending(self) -> Spending:
        """Return what holds credit while a write outside of a call takes it; in any thread."""
        return self._holds.spending()

    def stats(self) -> dict[str, int]:
        """Return the counters of all workers together, and how many live and have died."""
        return self._sums.stats(self._living(), deaths=sum(self._deaths.values()))

    def metrics(self) -> str:
        """Return the figures of all workers together in Prometheus' text format."""
        drained = self._snapshot.drained
        lag = sum(
            max(0, (member.journal.reported or 0) - drained.get(member.name, 0))
            for member in self._living()
        )
        age_s = (self._clock.monotonic_us() - self._swapped_us) / 1_000_000
        gauges = {"journal_lag_records": lag, "snapshot_age_seconds": age_s}
        return self._sums.metrics(self._living(), gauges, deaths=sum(self._deaths.values()))

    def in_flight_of(self, launch_id: str) -> int:
        """Return how many calls an instance has; exact once it has left the picture."""
        return sum(member.busy.get(launch_id, 0) for member in self._living())

    def taken_rao(self, user_id: str) -> int:
        """Return what of an account is leased or spent and not yet in the snapshot."""
        return self._holds.taken_rao(user_id)

    async def close(self) -> None:
        """Nothing is left to close once `serve` has returned."""

    # As a server.

    @property
    def should_exit(self) -> bool:
        """Tell whether the workers were told to stop."""
        return self._stop.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._stop.set()

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Run the workers on the port of a bound socket, which itself does not listen.

        Raises:
            ChutesError: a worker could not serve at the start; the code says why.
        """
        self._address = sockets[0].getsockname()[:2]
        self.started = True
        keeping = [asyncio.ensure_future(self._keep(name)) for name in self.names]
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((*keeping, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop.set()
            stopping.cancel()
            await self._end(keeping)
        for one in keeping:
            if not one.cancelled():
                one.result()

    def pids(self) -> dict[str, int]:
        """Return the process ids of the workers that live."""
        return {name: process.pid for name, process in self._processes.items()}

    # For members.

    def joins(self, member: Member) -> None:
        """Send a new worker the whole picture."""
        self._run(self._join(member))

    def is_ready(self, member: Member) -> None:
        """Note that a worker serves."""
        self._noted(member.name, None)
        self._were_ready.add(member.name)
        if self._were_ready >= set(self.names):
            self.ready.set()

    @property
    def lending(self) -> Lending:
        """What workers ask when they are short."""
        return self._lending

    def hears(self, before: Mapping[str, ChuteDemand], demand: Mapping[str, ChuteDemand]) -> None:
        """Take note of a report."""
        self.demand.heard(before, demand)

    # Inside.

    def _living(self) -> tuple[Member, ...]:
        """Return all members as of this moment, for any thread."""
        return tuple(self._members.values())

    async def _join(self, member: Member) -> None:
        while True:
            version = self._version
            whole = await asyncio.to_thread(encode, Snapshot(), self._snapshot, version)
            if version == self._version:
                break
        member.joined = True
        member.channel.send(Kind.PICTURE, whole)

    async def _keep(self, name: str) -> None:
        """Have one worker, again and again, until told to stop."""
        pauses = count()
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            began = loop.time()
            failure = await self._life(name)
            if self._stop.is_set():
                return
            if name not in self._were_ready and (failure or self._deaths[name] >= START_TRIES):
                raise failure or died(name)
            self._deaths[name] += 1
            error = failure or died(name)
            logger.error("Gateway worker ended", name=name, error=str(error))
            self._noted(name, error)
            await self._bury(name)
            if loop.time() - began >= STEADY_S:
                pauses = count()
            await self._pause(min(FIRST_PAUSE_S * 2 ** next(pauses), MAX_PAUSE_S))

    async def _life(self, name: str) -> ChutesError | None:
        """Run one process until it ends; return why it did not serve, if it could not."""
        loop = asyncio.get_running_loop()
        member = Member(name, self, self._files[name], loop.time)
        try:
            process = await self._begin(member)
        except OSError as error:  # no process or descriptor is left: the others go on
            logger.error("Gateway worker not started", name=name, error=str(error))
            return died(name)
        self._processes[name], self._members[name] = process, member
        waiting = asyncio.ensure_future(process.wait())
        try:
            member.channel.send(Kind.SETUP, self._setup.of(name, *self._address))
            if self._stop.is_set():
                member.channel.send(Kind.STOP, {})
            while not (await asyncio.wait((waiting,), timeout=LOOK_S))[0]:
                if member.silent_s > HUNG_S:
                    logger.error("Gateway worker killed: it says nothing", name=name)
                    self._kill(name)
        finally:
            if not waiting.done():
                self._kill(name)
                await waiting
            del self._processes[name], self._members[name]
            await member.close()
            self._files[name].reported = None
            self.demand.buried(member.demand)
            self._sums.bury(member)
        return member.failure

    async def _begin(self, member: Member) -> asyncio.subprocess.Process:
        """Start a worker's process at the other end of a new channel."""
        ours, theirs = socket.socketpair()
        with theirs:
            member.use(await connect(ours, member.take, member.lost), self._control)
            try:
                return await self._start(theirs)
            except OSError:
                await member.close()
                raise

    async def _bury(self, name: str) -> None:
        """Settle what a dead worker recorded; then others may use what it had leased."""
        self.leases.ended(name, settled=False)
        done = asyncio.Event()

        async def settle() -> None:
            await asyncio.to_thread(self.journals.settle_one, name, self._drain)
            await self._refresh()
            last = await asyncio.to_thread(lambda: self._files[name].last_sequence)
            if self._snapshot.drained.get(name, 0) >= last:
                done.set()

        while not self._stop.is_set():
            await self._loops.once(f"{name} settlement", settle)
            if done.is_set():
                self.leases.ended(name, settled=True)
                return
            await self._pause(LOOK_S)

    async def _pause(self, seconds: float) -> None:
        waiting = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((waiting,), timeout=seconds)
        waiting.cancel()

    async def _end(self, keeping: Sequence["asyncio.Future[None]"]) -> None:
        """Have all workers finish; who takes too long is killed."""
        for member in self._members.values():
            member.channel.send(Kind.STOP, {})
        await asyncio.wait(keeping, timeout=self._setup.grace_s + END_S)
        for one in keeping:
            one.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _kill(self, name: str) -> None:
        process = self._processes.get(name)
        if process is not None and process.returncode is None:
            process.kill()

    def _run(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
