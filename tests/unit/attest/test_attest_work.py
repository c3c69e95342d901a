"""How much is asked of a GPU, what it is held to, and what an uncalibrated class counts as."""

import threading

import pytest

from chutes_core.validator.attest.group import run_group
from chutes_core.validator.attest.work import UNCALIBRATED, proven_class, work_for
from graval.errors import RoundTripTooLong
from graval.gpus import GPUS
from graval.light import LIGHT_LEG1_US, LIGHT_LEG2_US
from graval.params import profile, references

GIB = 1 << 30


def uncalibrated():
    known = {reference.gpu for reference in references()}
    return next(name for name in ("a40", "h20", "h800") if name not in known)


def test_a_calibrated_class_is_held_to_its_own_reference():
    """The basis is said with it."""
    work = work_for(profile("periodic"), "h100_sxm", GPUS["h100_sxm"].memory_bytes, rtt_us=500)
    assert work.known.gpu == "h100_sxm"
    assert work.known.basis == "measured"
    assert work.passes == 1
    assert proven_class(work, "h100_sxm", 1, 1) == "h100_sxm"


def test_a_light_challenge_is_long_enough_to_be_timed():
    """Both legs of an honest H100 take tens of milliseconds, whatever the profile's name."""
    work = work_for(profile("light"), "h100_sxm", 80 * GIB, rtt_us=300)
    leg2_us = work.known.leg2_us * work.profile.stages // work.known.stages
    assert work.known.leg1_us >= LIGHT_LEG1_US // 2
    assert leg2_us >= LIGHT_LEG2_US
    assert work.rows * 1024 == GIB


def test_in_a_round_everybody_works_for_half_a_second_at_least():
    """More passes where one is too short."""
    work = work_for(profile("light"), "h100_sxm", 80 * GIB, rtt_us=300, least_us=500_000)
    one_us = work.known.leg1_us + work.known.leg2_us * work.profile.stages // work.known.stages
    assert one_us * work.passes >= 500_000


def test_a_round_trip_that_is_too_long_is_said_as_such():
    """It is no false claim of the miner's."""
    with pytest.raises(RoundTripTooLong):
        work_for(profile("light"), "h100_sxm", 80 * GIB, rtt_us=9_000_000)


def test_an_uncalibrated_class_counts_as_what_its_figures_prove():
    """Slow figures prove nothing; very fast ones prove a calibrated class of no higher price."""
    name = uncalibrated()
    work = work_for(profile("periodic"), name, GPUS[name].memory_bytes, rtt_us=300)
    assert work.known.basis == UNCALIBRATED
    assert proven_class(work, name, work.known.leg1_us * 50, work.known.leg2_us * 50) == ""
    fast = proven_class(work, name, 1_000, 1_000)
    assert fast in GPUS
    assert fast != name


def test_sessions_of_a_group_start_together_and_one_that_fails_holds_nobody_up():
    """Nobody starts before the last is ready; who ends before is not waited for."""
    ready, begun = [], []
    lock = threading.Lock()

    def run(plan, start):
        if plan == "broken":
            return "refused"
        with lock:
            ready.append(plan)
        start()
        with lock:
            begun.append(len(ready))
        return plan

    assert run_group(("a", "broken", "b"), run=run) == ("a", "refused", "b")
    assert begun == [2, 2]
