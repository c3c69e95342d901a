"""Node attestations in the plan: all idle GPUs at once, and before anything is placed on them."""

from chutes_core.miner.placement import Running, Slot, World, plan
from chutes_core.wire.control import AdmissionWanted, WantedChute
from chutes_core.wire.system import ADMISSION_CHUTE_ID, ADMISSION_VERSION

CHUTE = WantedChute(
    chute_id="00000000-0000-0000-0000-000000000001",
    version="00000000-0000-0000-0000-000000000002",
    image_id="00000000-0000-0000-0000-000000000003",
    gpu_count=1,
    gpu_classes=("l4",),
    rao_per_hour=1,
    missing=1,
)


def world(admitted, *, running=(), wanted=(CHUTE,), **changes):
    slots = tuple(Slot(f"GPU-{n}", "l4", "V") for n in range(3))
    admission = AdmissionWanted(
        chute_id=ADMISSION_CHUTE_ID,
        version=ADMISSION_VERSION,
        profile="admission",
        admitted=admitted,
    )
    return World(slots, running, {"V": tuple(wanted)}, admissions={"V": admission}, **changes)


def test_one_gpu_that_is_not_admitted_brings_all_idle_ones_to_one_attestation():
    """Those admitted before prove with it, and a busy one is left alone."""
    busy = Running("L", "V", ("GPU-2",))
    (launch,) = plan(world(("GPU-0",), running=(busy,))).actions
    assert launch.chute.chute_id == ADMISSION_CHUTE_ID
    assert launch.gpu_uuids == ("GPU-0", "GPU-1")


def test_admitted_gpus_serve_and_the_idle_rest_proves_beside_them():
    """Nothing is attested anew; idle ones go along where the runtime can keep them apart."""
    everyone = ("GPU-0", "GPU-1", "GPU-2")
    (launch,) = plan(world(everyone, prove_beside=True)).actions
    assert launch.chute == CHUTE
    assert launch.idle_gpus == ("GPU-1", "GPU-2")
    (alone,) = plan(world(everyone)).actions
    assert alone.idle_gpus == ()


def test_while_an_attestation_backs_off_nothing_is_placed_on_its_gpus():
    """The reason is not_admitted, and the plan is otherwise empty."""
    result = plan(world((), backing_off=frozenset({("V", ADMISSION_CHUTE_ID)})))
    assert result.actions == ()
    assert [miss.reason for miss in result.unplaced] == ["not_admitted"]


def test_gpus_that_prove_beside_a_launch_are_busy_until_it_is_proven():
    """They are neither placed nor attested meanwhile."""
    proving = Running("L", "V", ("GPU-0",), beside=("GPU-1", "GPU-2"))
    assert plan(world((), running=(proving,))).actions == ()
