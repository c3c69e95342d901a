"""Random grants, calls, delays, drains and deaths: workers together never overspend."""

from collections import deque
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chutes_core.base.errors import PaymentRequired
from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import PayerView, Snapshot
from chutes_core.validator.domain.spending import key_purse
from chutes_core.validator.gateway.holds import Holds
from chutes_core.validator.gateway.workers.channel import Kind
from chutes_core.validator.gateway.workers.leases import Leases
from chutes_core.validator.gateway.workers.purses import LeasedHolds, LeaseShort

USER, KEY = "user", "key"
PURSES = (USER, key_purse(KEY))
NAMES = ("w1", "w2", "w3")
BALANCE, BUDGET = 500, 400


class Worker:
    """One worker: its holds, what it recorded, and messages under way in both directions."""

    def __init__(self, name, recorded):
        self.holds = LeasedHolds(self)
        self.name = name
        self.to_main = deque()
        self.to_worker = deque()
        self.open = []
        self.recorded = recorded

    def ask_soon(self, purse, need):
        self.to_main.append((Kind.ASK, purse, need))


class Crews(RuleBasedStateMachine):
    """The truth is ``balance``: what the ledger says."""

    def __init__(self):
        super().__init__()
        self.main = Holds()
        self.leases = Leases(self.main, len(NAMES))
        self.journals = {name: [] for name in NAMES}
        self.drained = dict.fromkeys(NAMES, 0)
        self.balance, self.budget, self.entries = BALANCE, BUDGET, 0
        self.workers = {name: Worker(name, self.journals[name]) for name in NAMES}
        self.dead = set()
        self.spends = []
        self.snapshot = None
        self.swap()

    # What happens.

    @rule(name=st.sampled_from(NAMES), hold_rao=st.integers(1, 60))
    def a_call_begins(self, name, hold_rao):
        worker = self.workers[name]
        if name in self.dead:
            return
        payer = PayerView(USER, "", 10**9)
        key = ApiKey(KEY, USER, "k", "h", True, (), 0, budget_rao=10**9)
        rate = Rate("r", 3_600_000_000, hold_rao)
        try:
            hold = worker.holds.open(payer, rate, key)
        except LeaseShort as short:
            worker.to_main.append((Kind.ASK, short.purse, short.missing))
        else:
            worker.open.append((hold, rate))

    @rule(name=st.sampled_from(NAMES), usage=st.integers(0, 80), kept=st.booleans())
    def a_call_ends(self, name, usage, kept):
        worker = self.workers[name]
        if name in self.dead or not worker.open:
            return
        hold, rate = worker.open.pop(0)
        if not kept:
            hold.release()
            return
        record = _invocation(name, len(worker.recorded) + 1, rate, usage)
        worker.recorded.append(record)
        hold.settle(record.sequence, rate.charge_rao(record.usage_us))

    @rule(name=st.sampled_from(NAMES))
    def main_reads_a_message(self, name):
        worker = self.workers[name]
        if not worker.to_main or name in self.dead:
            return
        kind, purse, amount = worker.to_main.popleft()
        if kind is Kind.ASK:
            granted = self.leases.grant(name, purse, amount)
            worker.to_worker.append((Kind.GRANT, purse, granted))
        else:
            self.leases.returned(name, purse, amount)

    @rule(name=st.sampled_from(NAMES))
    def a_worker_reads_a_message(self, name):
        worker = self.workers[name]
        if not worker.to_worker or name in self.dead:
            return
        kind, what, amount = worker.to_worker.popleft()
        if kind is Kind.GRANT:
            worker.holds.granted(what, amount)
        elif kind is Kind.RECALL:
            worker.to_main.append((Kind.RETURN, what, worker.holds.give_up(what)))
        else:
            worker.holds.drained(what.drained.get(name, 0), what.ledger_entry)

    @rule(name=st.sampled_from(NAMES), purse=st.sampled_from(PURSES))
    def main_recalls(self, name, purse):
        if name not in self.dead:
            self.workers[name].to_worker.append((Kind.RECALL, purse, 0))

    @rule(name=st.sampled_from(NAMES))
    def a_worker_idles(self, name):
        if name not in self.dead:
            for purse, amount in self.workers[name].holds.idle().items():
                self.workers[name].to_main.append((Kind.RETURN, purse, amount))

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 5))
    def a_journal_is_drained(self, name, count):
        self.drain(name, count)

    @rule()
    def a_picture_is_swapped(self):
        self.swap()

    @precondition(lambda self: len(self.dead) < len(NAMES))
    @rule(name=st.sampled_from(NAMES))
    def a_worker_dies(self, name):
        if name in self.dead:
            return
        self.dead.add(name)
        self.workers[name] = Worker(name, self.journals[name])
        self.leases.ended(name, settled=False)

    @rule(name=st.sampled_from(NAMES))
    def a_dead_worker_is_buried_and_started_again(self, name):
        if name in self.dead:
            self.drain(name, 10**6)
            self.swap()
            self.leases.ended(name, settled=True)
            self.dead.discard(name)

    @rule(rao=st.integers(1, 200), written=st.booleans())
    def somebody_gives_money_away(self, rao, written):
        with self.main.spending() as spend:
            taken = spend.hold(USER, rao)
            if written and rao <= self.balance - taken:
                self.balance -= rao
                self.entries += 1
                spend.written(self.entries)

    @rule(rao=st.integers(1, 100))
    def a_payment_comes(self, rao):
        self.balance += rao
        self.entries += 1

    # What they do.

    def drain(self, name, count):
        records = self.journals[name][self.drained[name] :][:count]
        self.leases.charged(name, records)
        for one in records:
            rao = Rate(one.rate_id, one.rao_per_hour, one.hold_rao).charge_rao(one.usage_us)
            self.balance -= rao
            self.budget -= rao
            self.drained[name] = one.sequence

    def swap(self):
        key = ApiKey(KEY, USER, "k", "h", True, (), 0, budget_rao=max(0, self.budget))
        self.snapshot = Snapshot(
            keys={"h": key},
            payers={USER: PayerView(USER, "", self.balance)},
            drained=dict(self.drained),
            ledger_entry=self.entries,
        )
        self.leases.swap(self.snapshot)
        for name, worker in self.workers.items():
            if name not in self.dead:
                worker.to_worker.append((Kind.PICTURE, self.snapshot, 0))

    # What always holds.

    def open_and_undrained(self):
        total = 0
        for name, worker in self.workers.items():
            total += sum(hold.rao for hold, _ in worker.open)
            for one in self.journals[name][self.drained[name] :]:
                total += Rate("r", one.rao_per_hour, one.hold_rao).charge_rao(one.usage_us)
        return total

    @invariant()
    def nothing_is_overspent(self):
        """What is open or charged never exceeds what the ledger has."""
        owed = self.open_and_undrained()
        assert owed <= self.balance
        assert owed <= self.budget

    @invariant()
    def no_lease_is_negative(self):
        """Neither side ever counts below zero."""
        for worker in self.workers.values():
            for purse in PURSES:
                assert worker.holds.leased(purse) >= worker.holds.taken_rao(purse) >= 0

    def teardown(self):
        """In the end all that nobody uses is free again."""
        for name in NAMES:
            worker = self.workers[name]
            while worker.open and name not in self.dead:
                worker.open.pop()[0].release()
            if name in self.dead:
                self.a_dead_worker_is_buried_and_started_again(name)
        for name in NAMES:
            self.drain(name, 10**6)
        self.swap()
        for _ in range(3):
            for name, worker in self.workers.items():
                while worker.to_main or worker.to_worker:
                    self.main_reads_a_message(name)
                    self.a_worker_reads_a_message(name)
                self.a_worker_idles(name)
        for name in NAMES:
            while self.workers[name].to_main:
                self.main_reads_a_message(name)
        assert self.leases.free(USER) == max(0, self.balance)
        assert self.leases.free(PURSES[1]) == max(0, self.budget)


def _invocation(worker, sequence, rate, usage):
    base = Invocation(
        worker, sequence, f"{worker}-{sequence}", USER, KEY, "c", "l", rate.rate_id,
        rate.rao_per_hour, rate.hold_rao, False, 1, usage, 0, 0, 1, 200, "ok",
    )  # fmt: skip
    return replace(base, usage_us=usage)


TestCrews = Crews.TestCase
TestCrews.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_a_refused_call_is_a_payment_required():
    """Who is short is told so in the form of every other refusal."""
    assert issubclass(LeaseShort, PaymentRequired)
