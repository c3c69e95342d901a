"""Runs of jobs over a real store; instances, files and the time are the test's."""

import asyncio
import hashlib
import json
from dataclasses import replace

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import TooLarge, Unavailable
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.billing.rates import Rates
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.jobs import JobSpec, StoredFile
from chutes_core.validator.domain.launches import LaunchState
from chutes_core.validator.domain.money import CHAIN_PAYMENTS, Entry, Posting, user_credit
from chutes_core.validator.domain.spending import Unwatched
from chutes_core.validator.jobs import conductor, files
from chutes_core.validator.jobs.claims import Claims
from chutes_core.validator.jobs.conductor import Conductor
from chutes_core.validator.jobs.ending import Endings
from chutes_core.validator.jobs.service import JobAsked, Jobs
from chutes_core.validator.launches import instance
from chutes_core.validator.launches.wanted import Wanted
from chutes_core.validator.store.database import Store
from chutes_core.wire.job import JobFile, JobReport
from tests.unit.launches.test_autoscale_target import chute
from tests.unit.launches.test_lights import launch

CREDIT_RAO = 10_000_000_000
DAY_S = 24 * 3600
SPEC = JobSpec("train", 600)
CHUTE_ID, VERSION, IMAGE_ID = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))


def account(name, number, roles=frozenset()):
    return Account(
        user_id=name,
        number=number,
        username=name,
        hotkey_ss58=f"hot-{name}",
        coldkey_ss58=f"cold-{name}",
        payment_address=f"pay-{name}",
        deposit_address=f"deposit-{name}",
        fingerprint_sha256="0" * 64,
        created_at_s=1,
        roles=roles,
    )


class House:
    """The rooms of jobs; `instances` maps a launch to what it answers, by kind."""

    def __init__(self, store, clock, monkeypatch):
        self.store, self.clock = store, clock
        self.rates = Rates(tao_usd_micros=400_000_000, max_call_s=600)
        self.calls, self.demand = {}, {}
        self.orders, self.drained, self.fetched, self.left = [], [], [], []
        self.report = JobReport(ran_ms=0)
        self.contents = {}
        self.down = None  # what every call of an instance raises
        self.users = {}
        for number, name in enumerate(("ann", "bea"), 1):
            self.add_user(name, number)
        monkeypatch.setattr(instance, "run_job", self.run_job)
        monkeypatch.setattr(instance, "ask_job", self.ask_job)
        monkeypatch.setattr(files, "fetch", self.fetch)
        self.fresh()

    def add_user(self, name, number, roles=frozenset()):
        self.users[name] = one = account(name, number, roles)
        self.store.accounts.create(lambda _: one)
        self.credit(name, CREDIT_RAO)

    def credit(self, name, rao):
        postings = (Posting(user_credit(name), rao), Posting(CHAIN_PAYMENTS, -rao))
        self.store.ledger.apply(Entry(f"pay:{name}:{rao}", "payment", 1, postings))

    def fresh(self):
        """Make the rooms anew over the same store, as a restarted process does."""
        self.endings = Endings(self.store, self.clock)
        self.wanted = Wanted(
            store=self.store, demand=lambda: self.demand, tao_usd_micros=400_000_000
        )
        self.claims = Claims(
            store=self.store,
            clock=self.clock,
            wanted=self.wanted,
            in_flight=lambda launch_id: self.calls.get(launch_id, 0),
            endings=self.endings,
            wait_s=3600,
        )
        self.jobs = Jobs(
            self.store, self.clock, self.rates, spending=Unwatched, endings=self.endings
        )
        self.conductor = Conductor(
            store=self.store,
            clock=self.clock,
            claims=self.claims,
            endings=self.endings,
            address_of=lambda one: one,
            drain=self.drain,
            changed=self.changed,
            left=self.left.append,
            max_files_bytes=1000,
            sleep=self.sleep,
        )
        self.ticks = 0

    def deploy(self, **changes):
        fields = {"user_id": "ann", "cords": (), "jobs": (SPEC,), "max_instances": 5}
        ids = {"chute_id": CHUTE_ID, "version": VERSION, "image_id": IMAGE_ID}
        one = chute(**{**ids, **fields, **changes})
        self.store.chutes.save(one)
        return one

    def activate(self, number=1, chute_id=CHUTE_ID, version=VERSION, state=LaunchState.ACTIVE):
        one = replace(launch(number, chute_id), version=version, state=state)
        self.store.launches.insert(one, b"key", b"ticket")
        return one.launch_id

    def ask(self, name="ann", key=None, **arguments):
        caller = Principal(self.users[name], key)
        return self.jobs.start(
            caller, self.store.chutes.get(CHUTE_ID), JobAsked("train", arguments)
        )

    def who(self, name):
        return Principal(self.users[name])

    def balance(self, name="ann"):
        return self.store.ledger.balance(user_credit(name))

    def job(self, job_id):
        return self.store.jobs.get(job_id)

    def leaves(self, result=None, **contents):
        """Let the instance say that it is done, with these files."""
        self.contents = {name: text.encode() for name, text in contents.items()}
        named = tuple(JobFile(name=n, size_bytes=len(b)) for n, b in self.contents.items())
        self.report = JobReport(
            ran_ms=2_500, status="complete", result=json.dumps(result), files=named
        )

    async def carry(self):
        """Look once at what is due, and carry it as far as it goes."""
        await self.conductor.run_once()
        for task in list(self.conductor._tasks.values()):
            await task

    async def run_job(self, address, order):
        if self.down is not None:
            raise self.down
        self.orders.append((address.launch_id, order))

    async def ask_job(self, address, job_id):
        if self.down is not None:
            raise self.down
        return self.report(job_id) if callable(self.report) else self.report

    def fetch(self, address, job_id, name, blobs, *, limit_bytes, stop):
        if self.down is not None:
            raise self.down
        content = self.contents[name]
        self.fetched.append((name, limit_bytes))
        if len(content) > limit_bytes:
            raise TooLarge("blob_too_large", "too large")
        blob = blobs.put([content], limit_bytes=limit_bytes)
        assert blob.sha256 == hashlib.sha256(content).hexdigest()
        return StoredFile(name, blob.size_bytes, blob.sha256)

    async def drain(self, one, reason):
        self.drained.append((one.launch_id, reason.value))
        self.end_launch(one.launch_id, reason)

    def end_launch(self, launch_id, reason):
        self.store.launches.advance(
            launch_id,
            LaunchState.ACTIVE,
            LaunchState.GONE,
            reason=reason,
            gone_at_s=self.clock.now_s(),
        )

    async def changed(self):
        pass

    async def sleep(self, seconds):
        self.clock.advance(seconds)
        self.ticks += 1
        if self.ticks > 5_000:
            raise Unavailable("test_stuck", "the run does not end")
        await asyncio.sleep(0)


@pytest.fixture
def house(tmp_path, monkeypatch):
    clock = ManualClock()
    store = Store(tmp_path / "v.sqlite", clock=clock)
    monkeypatch.setattr(conductor.files, "MIN_FREE_BYTES", 0)
    yield House(store, clock, monkeypatch)
    assert store.ledger.total() == 0
    assert store.ledger.disagreements() == ()
    store.close()
