"""Adversaries in a round: one GPU behind two instances, two hotkeys, ten idle GPUs.

Sessions, sockets, challenges and verdicts are real; time is the silicon's own: it moves when a
piece of work is done on it, one piece at a time, each as long as an honest GPU takes.
"""

import threading
from dataclasses import replace

import pytest

from chutes_core.validator.attest.group import run_group
from chutes_core.validator.attest.sessions import run_session
from chutes_core.validator.domain.launches import Reason
from graval.params import PROFILES, reference
from tests.protocol.attest.instances import Instance, Knowing, started

pytestmark = pytest.mark.usefixtures("known")
KNOWN = reference("h100_sxm", "test")
HONEST_US = {1: KNOWN.leg1_us, 2: KNOWN.leg2_us}


class Silicon:
    """One GPU: how long it has worked, in microseconds; it begins when all first legs are there."""

    def __init__(self, tenants=1):
        self.worked_us = 0
        self._turn = threading.Lock()
        self._all_here = threading.Barrier(tenants, timeout=60)

    def work(self, us, leg):
        if leg == 1:
            self._all_here.wait()
        with self._turn:
            self.worked_us += us

    def now_us(self):
        return self.worked_us


def an_instance_on(silicon):
    """An instance whose legs take an honest GPU's time on a piece of silicon."""

    class OnSilicon(Knowing):
        def answer(self, index, leg, body):
            silicon.work(HONEST_US[leg], leg)
            return super().answer(index, leg, body)

    return OnSilicon


def round_of(*silicons, **changes):
    """Challenge an instance on each piece of silicon at one instant; return the outcomes."""
    pairs = [started(an_instance_on(silicon)) for silicon in silicons]
    clocks = {plan.port: silicon for (plan, _), silicon in zip(pairs, silicons, strict=True)}

    def run(plan, start):
        return run_session(plan, now_us=clocks[plan.port].now_us, start=start)

    plans = tuple(
        replace(plan, **{name: values[at] for name, values in changes.items()})
        for at, (plan, _) in enumerate(pairs)
    )
    outcomes = run_group(plans, run=run)
    for _, instance in pairs:
        instance.close()
    return outcomes


def assert_shared(outcomes):
    """At most one of them is served in time, and the others are late, never wrong."""
    passed = [one for one in outcomes if one.passed]
    late = [one for one in outcomes if one.reason is Reason.PROOF_LATE]
    assert len(passed) <= 1
    assert len(passed) + len(late) == len(outcomes)


def test_two_instances_on_two_gpus_pass():
    """The control: each has its own silicon."""
    assert [one.passed for one in round_of(Silicon(), Silicon())] == [True, True]


def test_one_gpu_behind_two_instances_is_late_for_one():
    """Whatever order it serves them in, it needs twice the time, and 1.30 times is allowed."""
    gpu = Silicon(tenants=2)
    assert_shared(round_of(gpu, gpu))


def test_one_gpu_behind_two_hotkeys_is_late_for_one():
    """The hotkey is in the seed, so nothing that was computed for one serves the other."""
    gpu = Silicon(tenants=2)
    assert_shared(round_of(gpu, gpu, miner_hotkey=("5One", "5Two")))


def test_ten_idle_instances_on_one_gpu_pass_one_at_most():
    """Node attestations of one round, each of another idle GPU that is claimed."""
    gpu = Silicon(tenants=10)
    assert_shared(round_of(*[gpu] * 10, scope=("node",) * 10))


def test_an_idle_gpu_that_is_an_instances_own_is_late():
    """Claimed twice: once as idle, once behind an instance."""
    gpu = Silicon(tenants=2)
    assert_shared(round_of(gpu, gpu, scope=("node", "instance")))


def test_the_answer_of_the_other_hotkeys_challenge_is_wrong():
    """Who answers both with what was computed once fails, and being fast does not help."""
    answered = {1: threading.Event(), 2: threading.Event()}
    stolen = {}

    class Computes(Instance):
        def answer(self, index, leg, body):
            stolen[leg] = super().answer(index, leg, body)
            answered[leg].set()
            return stolen[leg]

    class Copies(Instance):
        def answer(self, index, leg, body):
            assert answered[leg].wait(60)
            return stolen[leg]

    pairs = [started(Computes), started(Copies)]
    mine, theirs = (plan for plan, _ in pairs)
    honest, copied = run_group((mine, replace(theirs, miner_hotkey="5Other")))
    for _, instance in pairs:
        instance.close()
    assert honest.passed
    assert copied.reason is Reason.PROOF_WRONG


def test_the_allowance_is_what_the_paper_says():
    """Two on one silicon could only pass where D1 or D2 allowed for twice the time."""
    assert PROFILES["test"].stages == KNOWN.stages
    assert 2 * KNOWN.leg1_us > KNOWN.leg1_us * 1.3 * 1.06
