"""Random calls and delays: workers together keep a key's rate, whatever slices they hold."""

import asyncio
from collections import Counter, deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Exhausted
from chutes_core.validator.gateway.workers.asking import Asking
from chutes_core.validator.gateway.workers.rates import FIRST_SLICE, GivenOut, SharedBuckets

KEY = "key"
NAMES = ("w1", "w2", "w3")
PER_S, BURST = 100, 1200
OWN = st.sampled_from((None, 600))
MOST = BURST // (8 * len(NAMES))


class Worker:
    """A worker's buckets, its callers, and messages under way in both directions."""

    def __init__(self, clock):
        self.to_main, self.to_worker = deque(), deque()
        self.buckets = SharedBuckets(Asking(self), clock)
        self.callers = set()

    def send(self, kind, head):
        del kind
        self.to_main.append(head)


class Rates(RuleBasedStateMachine):
    """``made`` is the truth: how many calls passed at which moment."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.main = GivenOut(per_s=PER_S, burst=BURST, workers=len(NAMES), clock=self.clock)
        self.workers = {name: Worker(self.clock) for name in NAMES}
        self.made = Counter()
        self.refused = 0

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 60), own=OWN)
    def calls_come(self, name, count, own):
        worker = self.workers[name]
        for _ in range(count):
            task = self.loop.create_task(worker.buckets.obtain(KEY, calls_per_minute=own))
            worker.callers.add(task)
        self.let_them_go_on()

    @rule(name=st.sampled_from(NAMES))
    def a_caller_leaves(self, name):
        for caller in tuple(self.workers[name].callers)[:1]:
            caller.cancel()
        self.let_them_go_on()

    @rule(name=st.sampled_from(NAMES))
    def main_answers(self, name):
        worker = self.workers[name]
        if worker.to_main:
            asked = dict(worker.to_main.popleft())
            worker.to_worker.append(self.main.take(asked.pop("key"), **asked))

    @rule(name=st.sampled_from(NAMES))
    def a_worker_hears(self, name):
        worker = self.workers[name]
        if worker.to_worker:
            worker.buckets.granted(worker.to_worker.popleft())
        self.let_them_go_on()

    @rule(milliseconds=st.integers(1, 1500))
    def time_passes(self, milliseconds):
        self.clock.advance(milliseconds / 1000)

    def let_them_go_on(self):
        for _ in range(4):
            self.loop.run_until_complete(asyncio.sleep(0))
        for worker in self.workers.values():
            for caller in [one for one in worker.callers if one.done()]:
                worker.callers.discard(caller)
                if caller.cancelled():
                    continue
                if isinstance(caller.exception(), Exhausted):
                    self.refused += 1
                else:
                    caller.result()
                    self.made[self.clock.monotonic_us()] += 1

    @invariant()
    def the_rate_is_kept(self):
        """Over any time: at most the burst, the rate, and what workers held at its beginning."""
        total = 0
        for at_us in sorted(self.made, reverse=True):
            total += self.made[at_us]
            passed_s = (self.clock.monotonic_us() - at_us) / 1e6
            assert total <= BURST + PER_S * passed_s + len(NAMES) * MOST

    @invariant()
    def one_question_at_a_time(self):
        """However many callers wait, a worker asks once about a key, and waits for the answer."""
        for worker in self.workers.values():
            assert len(worker.to_main) + len(worker.to_worker) <= 1

    def teardown(self):
        """Whoever waits is served or refused in the end."""
        while any(worker.callers for worker in self.workers.values()):
            for name in NAMES:
                self.main_answers(name)
                self.a_worker_hears(name)
        self.loop.close()


TestRates = Rates.TestCase
TestRates.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


async def test_slices_grow_while_they_are_used_up_quickly_and_shrink_again():
    """At 10,000 calls a second a worker asks some twenty times in one, before it has none left."""
    clock = ManualClock()
    main = GivenOut(per_s=10**6, burst=10**6, workers=2, clock=clock)
    worker = Worker(clock)
    sizes, waited = [], 0

    async def calls(count, every_s):
        nonlocal waited
        for _ in range(count):
            call = asyncio.ensure_future(worker.buckets.obtain(KEY))
            await asyncio.sleep(0)
            waited += not call.done()
            if worker.to_main:
                asked = dict(worker.to_main.popleft())
                given = main.take(asked.pop("key"), **asked)
                sizes.append(given["calls"])
                worker.buckets.granted(given)
            await call
            clock.advance(every_s)

    await calls(20_000, 0.0001)
    assert waited == 1, "the first call alone"
    assert len(sizes) < 80
    assert sizes[0] == FIRST_SLICE
    assert max(sizes) > 20 * FIRST_SLICE
    await calls(300, 0.02)
    assert sizes[-1] == FIRST_SLICE
