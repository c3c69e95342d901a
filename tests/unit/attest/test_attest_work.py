"""How much is asked of a GPU, what it is held to, and what an uncalibrated class counts as."""

import threading

import pytest

from chutes_core.validator.attest.group import balanced, run_group
from chutes_core.validator.attest.work import FALLBACK, UNCALIBRATED, proven_class, work_for
from chutes_core.validator.domain.verdicts import AttestPlan, ClaimedGpu
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


def test_the_torch_fallback_has_deadlines_of_its_own_and_proves_no_class_by_them():
    """Its honest figures are accepted and count as nothing; as fast as Triton it counts as that."""
    memory = GPUS["h100_sxm"].memory_bytes
    work = work_for(profile("periodic"), "h100_sxm", memory, rtt_us=300, backend="torch")
    assert work.known.basis == FALLBACK
    assert work.due.leg1_us > 17_000_000
    assert proven_class(work, "h100_sxm", work.known.leg1_us, work.known.leg2_us) == ""
    fast = work_for(profile("periodic"), "h100_sxm", memory, rtt_us=300).known
    assert proven_class(work, "h100_sxm", fast.leg1_us, fast.leg2_us) == "h100_sxm"
    h200 = work_for(
        profile("periodic"), "h200", GPUS["h200"].memory_bytes, rtt_us=1, backend="torch"
    )
    assert h200.known.basis == "measured"  # no figures of its own: the class's


def plan(name, scope="light", profile_name="light", gpu_class="h100_sxm"):
    return AttestPlan(
        launch_id=name,
        validator_hotkey="5V",
        miner_hotkey="5M",
        node_id="node",
        host="127.0.0.1",
        port=1,
        ticket=b"",
        validator_private_key=b"",
        instance_public_key=b"",
        profile=profile_name,
        gpus=(ClaimedGpu(f"GPU-{name}", 0, gpu_class, False),),
        devnet=False,
        started_at_s=1,
        scope=scope,
        least_us=500_000 if scope == "light" else 0,
    )


def test_sessions_of_a_group_start_together_and_one_that_fails_holds_nobody_up():
    """Nobody starts before the last is ready; who ends before is not waited for."""
    ready, begun = [], []
    lock = threading.Lock()

    def run(one, start):
        if one.launch_id == "broken":
            return "refused"
        with lock:
            ready.append(one)
        start()
        with lock:
            begun.append(len(ready))
        return one.launch_id

    assert run_group((plan("a"), plan("broken"), plan("b")), run=run) == ("a", "refused", "b")
    assert begun == [2, 2]


@pytest.mark.parametrize("gpu_class", ["h100_sxm", "a6000", "b200"])
def test_no_light_challenge_fits_into_the_slack_of_an_idle_gpus_first_leg(gpu_class):
    """Done first on the same silicon, it makes the other's leg 1 late, whatever the class."""
    light, idle = balanced((plan("a", gpu_class=gpu_class),
                            plan("b", "node", "periodic", gpu_class)))  # fmt: skip
    memory = GPUS[gpu_class].memory_bytes
    fuller = work_for(profile("periodic"), gpu_class, memory, rtt_us=300)
    work = work_for(profile("light"), gpu_class, memory, rtt_us=300, least_us=light.least_us)
    both_us = (work.known.leg1_us + work.known.leg2_us) * work.passes + fuller.known.leg1_us
    assert both_us > fuller.due.leg1_us
    assert light.least_us >= 500_000
    assert idle.least_us == 0


def test_light_challenges_among_themselves_stay_as_they_are():
    """Nothing fuller beside them, nothing longer."""
    assert balanced((plan("a"), plan("b"))) == (plan("a"), plan("b"))
