"""The main process's side of gateway workers: starts, tells, counts for and buries them.

Path: Pictures -> `swap` -> every worker; a worker's questions -> `leases`, `rates`; its journal ->
settlement. It stands where a Gateway stands in a validator of one process. Invariants: a picture
counts as swapped once every living worker decides by it (one that does not in time is killed); a
dead worker's money is leased again only after its journal was settled; what is asked of a worker
that died is answered by nobody.
"""

import asyncio
import os
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from loguru import logger

import chutes_core
from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.base.loops import Loops
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.validator.domain.snapshot import Snapshot
from chutes_core.validator.gateway.asgi import AsgiApp
from chutes_core.validator.gateway.holds import Holds, Spending
from chutes_core.validator.gateway.workers.asking import QUIET
from chutes_core.validator.gateway.workers.channel import Kind, connect
from chutes_core.validator.gateway.workers.journals import JournalFiles, Journals, Settle
from chutes_core.validator.gateway.workers.leases import Leases
from chutes_core.validator.gateway.workers.member import Member
from chutes_core.validator.gateway.workers.picture import encode
from chutes_core.validator.gateway.workers.rates import GivenOut
from chutes_core.validator.gateway.workers.setup import Setup
from chutes_core.validator.gateway.workers.sums import DemandSum, metrics_of, outcomes_of

SHOWN_S = 15.0  # to decide by a new picture; a worker that takes longer is killed
HUNG_S = 30.0  # a worker that says nothing for so long is killed
RECALL_S = 5.0
LOOK_S = 1.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 10.0
START_TRIES = 5  # of a worker that ends without a word before it ever served
STEADY_S = 60.0  # who lived so long is started again after the first pause
END_S = 5.0  # beyond the grace
_ROOT = Path(chutes_core.__file__).parents[1]
_MODULE = "chutes_core.validator.gateway.workers"


class Crew:
    """All workers of this validator.

    Args:
        setup: what they have in common.
        control: the ASGI application for everything that is no invocation.
        noted: told of a worker's end by its name and an error; of its start by None.
        clock: a test's to replace.

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
    ) -> None:
        self.demand = DemandSum(clock, lambda: [one.demand for one in self._living()])
        self.journals = Journals(Path(setup.journal_folder))
        self.ready = asyncio.Event()
        self.started = False
        self._setup = setup
        self._control = control
        self._noted = noted or (lambda name, error: None)
        self._holds = Holds()
        self.leases = Leases(self._holds, setup.workers)
        self._rates = GivenOut(
            per_s=setup.limits.key_calls_per_s,
            burst=setup.limits.key_burst,
            workers=setup.workers,
            clock=clock,
        )
        self._loops = Loops(self._noted)
        self._members: dict[str, Member] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._were_ready: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._past: Counter[str] = Counter()  # outcomes that workers counted which are gone
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._snapshot = Snapshot()
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
        total: Counter[str] = Counter(self._past)
        for member in self._living():
            total.update(member.stats)
        deaths = sum(self._deaths.values())
        return {**total, "workers": len(self._members), "worker_deaths": deaths}

    def metrics(self) -> str:
        """Return the figures of all workers together in Prometheus' text format."""
        return metrics_of(self.stats())

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

    def asks(self, member: Member, head: Mapping[str, Any]) -> None:
        """Lease more to a worker: what is free, else what others do not use."""
        given = None
        if not self._recalling(head).locked():
            given = self._grant(member, head)
        if given is None and head["id"] != QUIET:
            self._run(self._recall(member, head))
        else:
            self._answer(member, head, given)

    def takes(self, member: Member, head: Mapping[str, Any]) -> None:
        """Give a worker calls of a key."""
        said = self._rates.take(
            head["key"], head["calls_per_minute"], want=head["want"], has=head["has"]
        )
        member.channel.send(Kind.TOKENS, said)

    def hears(self, before: Mapping[str, ChuteDemand], demand: Mapping[str, ChuteDemand]) -> None:
        """Take note of a report."""
        self.demand.heard(before, demand)

    def returns(self, member: Member, purse: str, amount: int) -> None:
        """Take back what a worker does not use."""
        self.leases.returned(member.name, purse, amount)

    # Inside.

    def _living(self) -> tuple[Member, ...]:
        """Return all members as of this moment, for any thread."""
        return tuple(self._members.values())

    def _grant(self, member: Member, head: Mapping[str, Any]) -> tuple[str, int] | None:
        for purse in head["purses"]:
            amount = self.leases.grant(member.name, purse, head["need"])
            if amount:
                return purse, amount
        return None

    def _answer(
        self, member: Member, head: Mapping[str, Any], given: tuple[str, int] | None
    ) -> None:
        first = head["purses"][0] if head["purses"] else ""
        purse, amount = given or (first, 0)
        said = {"id": head["id"], "purse": purse, "amount": amount, "free": self.leases.free(first)}
        member.channel.send(Kind.GRANT, said)

    def _recalling(self, head: Mapping[str, Any]) -> asyncio.Lock:
        """Return the lock that lets one recall of a purse end before another begins."""
        return self._locks.setdefault(min(head["purses"], default=""), asyncio.Lock())

    async def _recall(self, member: Member, head: Mapping[str, Any]) -> None:
        """Answer with what is free, or else with what the others do not use."""
        async with self._recalling(head):
            given = None if member.is_lost else self._grant(member, head)
            if given is None:
                await self._take_back(member, head["purses"])
                given = None if member.is_lost else self._grant(member, head)
            self._answer(member, head, given)

    async def _take_back(self, member: Member, purses: Sequence[str]) -> None:
        """Have all other workers return what they do not use."""
        recalls = [
            asyncio.ensure_future(other.recall(purses))
            for other in self._members.values()
            if other is not member and any(self.leases.leased(other.name, one) for one in purses)
        ]
        if recalls:
            await asyncio.wait(recalls, timeout=RECALL_S)
            for one in recalls:
                one.cancel()

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
                raise failure or _died(name)
            self._deaths[name] += 1
            error = failure or _died(name)
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
            return _died(name)
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
            self._past.update(outcomes_of(member.stats))
        return member.failure

    async def _begin(self, member: Member) -> asyncio.subprocess.Process:
        """Start a worker's process at the other end of a new channel."""
        ours, theirs = socket.socketpair()
        with theirs:
            member.use(await connect(ours, member.take, member.lost), self._control)
            try:
                return await _spawn(theirs)
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


async def _spawn(theirs: socket.socket) -> asyncio.subprocess.Process:
    fd = theirs.fileno()
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        _MODULE,
        str(fd),
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(fd,),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )


def _died(name: str) -> ChutesError:
    return Unavailable(
        "worker_died",
        f"gateway worker {name} ended",
        hint="it is started again; the log and the kernel's say why it ended",
    )
