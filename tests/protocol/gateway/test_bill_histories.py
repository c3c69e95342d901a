"""Bills from the call to the ledger: histories of calls, failures, cuts, drains and restarts.

What a call costs is worked out from what its instance did, by a clock that only instances move:
nothing of the gateway's own measuring, of its records or of its sums is used to check it.
"""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
from gateway_stand_in import Incoming, Instance, World, planed, serving

from chutes_core.base.clock import ManualClock
from chutes_core.validator.billing.settle import Settlement
from chutes_core.validator.domain.money import REVENUE, Entry, Posting, Rate, user_credit
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.validator.store.database import Store
from chutes_core.wire.call import CallEnd
from chutes_core.wire.frames import FrameKind

LIMITS = GatewayLimits(
    cold_wait_s=0.0, key_burst=10**6, key_calls_per_s=10**6, max_attempts=4, idle_connection_s=1e6
)
PRICES = (Rate("rate-1", 7_777_777_777_777, 10**12), Rate("rate-2", 1, 1), Rate("rate-3", 0, 0))
GIFT = 10**15
PATIENCE_S = 90
NEXT = ("busy", "dead")  # no answer: the next instance is asked
ANSWERED = ("ok", "422", "stream", "lies")
CUT = ("left early", "left late")  # by the caller
FREE = ("500", "raised", "half")


@dataclass(frozen=True)
class Act:
    """What an instance does with the next call that reaches it, and how long it takes."""

    fate: str
    works_us: int


@dataclass(frozen=True)
class Asked:
    """A call; the acts are those of the instances that it reaches one after the other."""

    acts: tuple[Act, ...]
    price: int


@dataclass
class Books:
    """What must be, by the instances' own doing."""

    owed: dict[str, int] = field(default_factory=dict)
    recorded: set[str] = field(default_factory=set)

    def note(self, invocation_id: str, rate: Rate, act: Act) -> None:
        """Note what a call costs whose last try came to this."""
        rao = 0
        if act.fate in ANSWERED + CUT:
            exact = -(-act.works_us * rate.rao_per_hour // 3_600_000_000)
            rao = min(exact, rate.hold_rao)
        self.owed[invocation_id] = rao


class Life:
    """One validator's gateway, store and instances, through its restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.store = Store(folder / "validator.sqlite", clock=self.clock)
        self.world = World()
        self.owner_id = self.world.user(spendable_rao=0)
        self.key = self.world.key(self.owner_id)
        self.chutes = [
            self.world.chute(self.owner_id, f"bob-{number}", rate=rate)
            for number, rate in enumerate(PRICES)
        ]
        postings = (Posting(user_credit(self.owner_id), GIFT), Posting("chain:payments", -GIFT))
        self.store.ledger.apply(Entry("gift", "payment", 0, postings))
        self.books = Books()
        self.plan: list[Act] = []
        self.tried: list[tuple[str, Act]] = []
        self.reached = asyncio.Event()
        self.instances = [Instance(self.act) for _ in range(2)]
        self.lives = 0
        self.journal_folder = folder / "journal-0"

    async def begin(self) -> None:
        for instance in self.instances:
            await instance.listen()
        for chute in self.chutes:
            views = tuple(one.view(chute.chute_id) for one in self.instances)
            self.world.instances[chute.chute_id] = views

    async def act(self, call: Incoming) -> None:
        """Be the instance: time passes here and nowhere else."""
        self.reached.clear()
        act = self.plan.pop(0) if self.plan else Act("dead", 1)
        self.tried.append((call.head.invocation_id, act))
        fate, works_s = act.fate, act.works_us / 1_000_000
        if fate == "busy":
            await call.error("at_capacity")
            return
        if fate in ("stream", "half", "left late"):
            await call.start()
            await call.chunk(b"first")
        self.clock.advance(works_s)
        self.reached.set()
        if fate in ("dead", "half"):
            raise OSError("dead")
        if fate in CUT:
            await call.until_left()
        elif fate == "raised":
            await call.error("cord_failed")
        elif fate == "stream":
            await call.chunk(b"second")
            await call.end()
        elif fate == "lies":
            await call.start(200, (("content-length", "2"),))
            await call.chunk(b"ok")
            said = CallEnd(busy_us=10**15).model_dump_json().encode()
            await call.connection.send(FrameKind.END, said)
        else:
            await call.answer(b"said", {"ok": 200, "422": 422, "500": 500}[fate])

    # One life of the gateway.

    @asynccontextmanager
    async def served(self, reference: bool) -> AsyncIterator[None]:
        async def control(scope, receive, send) -> None:
            raise AssertionError("only invocations come here")

        self.journal = Journal(self.journal_folder, "gateway-1", segment_bytes=700)
        self.gateway = Gateway(
            control=control,
            journal=self.journal,
            limits=LIMITS,
            clock=self.clock,
            rng=random.Random(1),
        )
        self.settlement = Settlement(self.store, batch=3)
        self.show()
        door = serving(self.gateway.front) if reference else planed(self.gateway)
        try:
            async with door as port:
                url = f"http://127.0.0.1:{port}"
                self.client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S)
                async with self.client:
                    self.check()
                    yield
        finally:
            await self.gateway.close()
            self.journal.close()

    def show(self) -> None:
        """Give the gateway a picture of the store as it is."""
        with self.store.transaction():
            balance = self.store.ledger.balance(user_credit(self.owner_id))
            payer = self.world.payers[self.owner_id]
            self.world.payers[self.owner_id] = replace(payer, spendable_rao=balance)
            self.world.drained = self.store.invocations.drained()
            entry = self.store.ledger.last_entry_id()
        self.shown = balance
        self.gateway.swap(replace(self.world.snapshot(), ledger_entry=entry))

    async def call(self, asked: Asked) -> None:
        self.plan, self.tried = list(asked.acts), []
        self.reached.clear()
        chute = self.chutes[asked.price]
        await self.ask(f"/c/{chute.slug}/api/echo", asked.acts[-1])
        await asyncio.wait_for(self.gateway.quiet(), PATIENCE_S)
        if self.tried:
            invocation_id, act = self.tried[-1]
            assert {one for one, _ in self.tried} == {invocation_id}
            self.books.note(invocation_id, chute.rate, act)
            if act.fate != "busy" or any(one.fate == "dead" for _, one in self.tried):
                self.books.recorded.add(invocation_id)
        self.check()

    async def ask(self, path: str, last: Act) -> None:
        auth = {"authorization": f"Bearer {self.key}"}
        if last.fate == "left early":
            asking = asyncio.ensure_future(self.client.post(path, headers=auth, content=b"x"))
            reached = asyncio.ensure_future(self.reached.wait())
            while last not in [act for _, act in self.tried] and not asking.done():
                await asyncio.wait(
                    (asking, reached), timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
                )
                self.reached.clear()
                reached = asyncio.ensure_future(self.reached.wait())
            asking.cancel()
            reached.cancel()
            await asyncio.gather(asking, reached, return_exceptions=True)
            return
        try:
            async with self.client.stream("POST", path, headers=auth, content=b"x") as response:
                if last.fate == "left late" and response.status_code == 200:
                    await anext(response.aiter_raw())
                    await asyncio.wait_for(self.reached.wait(), PATIENCE_S)
                else:
                    await response.aread()
        except httpx.TransportError:
            assert any(act.fate == "half" for _, act in self.tried)

    def check(self) -> None:
        """Between two calls: what can be spent is the gift less what was used, to the rao."""
        owed = sum(self.books.owed.values())
        assert self.shown - self.gateway.taken_rao(self.owner_id) == GIFT - owed
        ledger = self.store.ledger
        assert ledger.balance(REVENUE) == GIFT - ledger.balance(user_credit(self.owner_id))
        assert ledger.total() == 0

    def drain(self, how: str) -> None:
        """Settle, and perhaps die of it before the store has it, or before the journal knows."""
        if how == "fails":
            failing = Settlement(self.store, batch=3, sealer=Failing())  # type: ignore[arg-type]
            with suppress(Died):
                failing.drain(self.journal)
        elif how == "forgotten":
            with suppress(Died):
                self.settlement.drain(Unforgetting(self.journal))
        else:
            self.settlement.drain(self.journal)
        if how == "shown":
            self.show()
        self.check()

    def kill(self, torn: bytes) -> None:
        """Leave the journal as a killed process does: not closed, and cut short in a record."""
        self.lives += 1
        left = self.folder / f"journal-{self.lives}"
        shutil.copytree(self.journal_folder, left)
        if torn:
            newest = max(left.glob("*.journal"), key=lambda path: int(path.stem))
            with newest.open("ab") as file:
                file.write(torn)
        self.journal_folder = left

    def audit(self) -> None:
        """At the end: the ledger has each call once, for its price."""
        records = self.store.invocations.between(0, 2**62)
        assert len({one.invocation_id for one in records}) == len(records)
        assert {one.invocation_id for one in records} == self.books.recorded
        for record in records:
            entry = self.store.ledger.get(f"invocation:{record.invocation_id}")
            owed = self.books.owed[record.invocation_id]
            assert (0 if entry is None else entry.postings[1].rao) == owed
        spent = GIFT - self.store.ledger.balance(user_credit(self.owner_id))
        assert spent == sum(self.books.owed.values())
        assert self.store.ledger.disagreements() == ()
        nonces = [one.nonce for instance in self.instances for one in instance.preambles]
        assert len(set(nonces)) == len(nonces)


class Died(Exception):
    """The process ended here."""


class Failing:
    """Signs nothing: the transaction ends before it is whole."""

    def seal(self, records: object) -> object:
        raise Died


class Unforgetting:
    """A journal whose process ends when it should forget what is settled."""

    def __init__(self, journal: Journal) -> None:
        self.worker = journal.worker
        self.last_sequence = journal.last_sequence
        self.pending = journal.pending

    def discard(self, up_to_sequence: int) -> None:
        raise Died


SEEDS = range(4)
LIVES = 4
STEPS = 16
LAST = (*ANSWERED, *ANSWERED, *CUT, *FREE, *NEXT)
DRAINS = ("shown", "unshown", "fails", "forgotten")


def any_call(rng: random.Random) -> Asked:
    """Return a call that mostly is answered at once, and else at the second try or never."""
    tries = [Act(rng.choice(NEXT), works_us(rng))] if rng.random() < 0.2 else []
    fate = rng.choice(LAST)
    # Failures of the chute's own are free for a minute an hour: these stay below it.
    last = Act(fate, rng.randrange(10**6) if fate in FREE else works_us(rng))
    return Asked((*tries, last), rng.choice((0, 0, 0, 1, 2)))


def works_us(rng: random.Random) -> int:
    return rng.choice((0, 1, 3_600_000_000, rng.randrange(10**9), rng.randrange(10**6)))


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_each_call_is_charged_once_and_to_the_rao(seed: int, tmp_path: Path):
    """By data plane and reference in turn; the sums agree between any two calls, too."""
    rng = random.Random(seed)
    life = Life(tmp_path)
    async with AsyncExitStack() as stack:
        stack.callback(life.store.close)
        await life.begin()
        for instance in life.instances:
            stack.push_async_callback(instance.close)
        for number in range(LIVES):
            async with life.served(reference=bool(number % 2)):
                for _ in range(STEPS):
                    await step(life, rng)
                if (end := rng.choice(("stop", "kill", "torn"))) != "stop":
                    life.kill(rng.randbytes(20) if end == "torn" else b"")
        async with life.served(reference=False):
            life.drain("shown")
            assert life.gateway.taken_rao(life.owner_id) == 0
            life.audit()
    assert sum(rao > 0 for rao in life.books.owed.values()) > STEPS


async def step(life: Life, rng: random.Random) -> None:
    chance = rng.random()
    if chance < 0.7:
        await life.call(any_call(rng))
    elif chance < 0.9:
        life.drain(rng.choice(DRAINS))
    else:
        life.clock.advance(120)  # breakers close
