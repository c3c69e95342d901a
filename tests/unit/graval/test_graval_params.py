"""Profiles, references, deadlines, the table of GPUs."""

import dataclasses

import pytest

from chutes_core.base.gpus import GPU_CLASSES
from graval import prf
from graval.challenge import DeviceInfo
from graval.errors import NoReference, OutOfRange, RoundTripTooLong, UnknownDevice
from graval.gpus import GPUS, check_claims, identify, model
from graval.params import (
    PROFILES,
    Profile,
    deadlines,
    profile,
    reference,
    references,
    stretch,
)
from graval.prover import numpy_backend

H100 = reference("h100_sxm", "periodic")
PERIODIC = PROFILES["periodic"]


def test_the_profiles_are_those_of_the_paper():
    """T, S, tags and fills are the protocol's."""
    shape = {p.name: (p.layers, p.stages, p.fill_bytes, p.fill_fraction) for p in PROFILES.values()}
    assert shape == {
        "test": (2, 2, 1 << 20, None),
        "light": (8, 4, 1 << 30, None),
        "periodic": (8, 16, None, (97, 100)),
        "admission": (16, 16, None, (97, 100)),
    }
    assert {(p.tags_per_stage, p.min_real, p.max_real, p.leg1_real) for p in PROFILES.values()} == {
        (24, 12, 20, 16)
    }
    assert Profile.from_bytes(PERIODIC.to_bytes()) == PERIODIC


def test_the_test_profile_walks_the_whole_path():
    """Small as it is, fill and scan take several turns, and every stage has needles and decoys."""
    test, chunks = PROFILES["test"], (prf._CHUNK_ROWS, numpy_backend._SCAN_ROWS)
    assert all(test.rows(0) >= 2 * chunk for chunk in chunks)
    assert test.stages >= 2
    assert test.leg1_real < test.tags_per_stage
    assert test.min_real < test.max_real < test.tags_per_stage
    assert test.tags_per_stage * (1 + test.stages) < test.rows(0) // 8  # few rows are needles


def test_deadlines_are_the_reference_with_its_slack():
    """D1 = 1.30 x and D2 = 1.10 x the reference where the round trip is nothing."""
    due = deadlines(PERIODIC, H100, rtt_us=0)
    assert (due.leg1_us, due.leg2_us) == (1_082_204 * 13 // 10, 434_100 * 11 // 10)


@pytest.mark.parametrize("rtt_us", [0, 1, 24_000, 26_000, 90_000, 5_000_000])
@pytest.mark.parametrize("ref", references(), ids=lambda r: f"{r.gpu}-{r.profile}")
def test_the_round_trip_is_at_most_five_percent_of_a_deadline(ref, rtt_us):
    """A far side that delays its pings gains at most 5 % of the deadline."""
    due = deadlines(PROFILES[ref.profile], ref, rtt_us)
    assert due.leg1_allowance_us * 20 <= due.leg1_us
    assert due.leg2_allowance_us * 20 <= due.leg2_us
    assert max(due.leg1_allowance_us, due.leg2_allowance_us) <= rtt_us


def test_stages_grow_until_the_round_trip_fits():
    """A far GPU gets more stages, until the whole round trip is 5 % of D2; a near one not."""
    assert stretch(PERIODIC, H100, rtt_us=1000) == PERIODIC
    far = stretch(PERIODIC, H100, rtt_us=100_000)
    due = deadlines(far, H100, rtt_us=100_000)
    assert due.leg2_allowance_us == 100_000
    assert far.stages > PERIODIC.stages
    fewer = deadlines(far.with_stages(far.stages - 1), H100, rtt_us=100_000)
    assert fewer.leg2_allowance_us < 100_000


def test_a_round_trip_beyond_all_stages_is_an_error():
    """A light challenge over a slow path proves nothing, and says so."""
    with pytest.raises(RoundTripTooLong):
        stretch(PROFILES["light"], reference("h100_sxm", "light"), rtt_us=150_000)


def test_references_fit_their_profile_only():
    """A deadline is never computed from another profile's reference, or a negative ping."""
    with pytest.raises(OutOfRange):
        deadlines(PROFILES["admission"], H100, rtt_us=0)
    with pytest.raises(OutOfRange):
        deadlines(PERIODIC, H100, rtt_us=-1)


def test_measured_references_name_device_driver_and_date():
    """What was measured says on what; what was not says predicted or derived."""
    for ref in references():
        measured = ref.gpu in ("h100_sxm", "h200")
        assert ref.basis == ("predicted" if not measured else ref.basis)
        if ref.basis == "measured":
            assert ref.device
            assert ref.driver
            assert ref.date
    assert {r.gpu for r in references() if r.basis == "measured"} == {"h100_sxm", "h200"}


def test_the_test_profile_has_one_reference_for_every_class():
    """A stand-in's time says nothing, whatever class it declares."""
    assert {reference(g, "test").leg1_us for g in GPUS} == {10_000_000}
    assert reference("a4000", "test").basis == "fixed"


def test_an_uncalibrated_class_has_no_reference():
    """A known class without figures is an error of its own; an unknown one another."""
    with pytest.raises(NoReference):
        reference("a4000", "periodic")
    with pytest.raises(UnknownDevice):
        reference("voodoo2", "test")


def test_the_table_knows_the_25_classes_of_the_price_list():
    """graval's hardware table and the price table have the same short names and memory."""
    assert set(GPUS) == set(GPU_CLASSES)
    assert len(GPUS) == 25
    for name, gpu in GPUS.items():
        nominal = GPU_CLASSES[name].vram_gb
        assert abs(gpu.memory_mib / 1024 - nominal) / nominal < 0.07


def test_claims_that_disagree_are_named(challenge, replace):
    """Each field that contradicts the claimed class is named; an honest one names none."""
    info = challenge.leg1.context.device
    assert check_claims("h100_sxm", info) == []
    assert info.stand_in
    lies = replace(info, memory_bytes=info.memory_bytes // 2, sm_count=66, mig=True)
    assert check_claims("h100_sxm", lies) == ["memory_bytes", "sm_count", "mig"]
    assert check_claims("a10", info) == [
        "short_name",
        "name",
        "memory_bytes",
        "sm_count",
        "compute_capability",
    ]


def honest_info(gpu):
    return DeviceInfo(
        short_name=gpu.short_name,
        name=gpu.names[-1],
        uuid="GPU-1",
        memory_bytes=gpu.memory_bytes,
        sm_count=gpu.sm_counts[-1],
        compute_capability=gpu.compute_capability,
        backend="triton",
    )


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS.keys())
def test_of_every_class_an_honest_device_agrees_and_each_lie_names_its_own_field(gpu):
    """All 25: strings, memory beyond the tolerance, processors, capability, and a MIG slice."""
    info = honest_info(gpu)
    assert check_claims(gpu.short_name, info) == []
    near = dataclasses.replace(info, memory_bytes=info.memory_bytes * 98 // 100)
    assert check_claims(gpu.short_name, near) == []
    lies = {
        "short_name": "other",
        "name": gpu.names[0] + " MIG 1g.10gb",
        "memory_bytes": info.memory_bytes * 96 // 100,
        "sm_count": max(gpu.sm_counts) + 1,
        "compute_capability": "1.0",
        "mig": True,
    }
    for field, lie in lies.items():
        assert check_claims(gpu.short_name, dataclasses.replace(info, **{field: lie})) == [field]


def test_driver_strings_identify_one_class():
    """No driver string belongs to two classes."""
    names = [n for gpu in GPUS.values() for n in gpu.names]
    assert len(names) == len(set(names))
    assert identify("NVIDIA H100 80GB HBM3") is model("h100_sxm")
    assert identify("NVIDIA Voodoo2") is None


def test_profiles_that_contradict_themselves_are_refused():
    """A profile needs one kind of fill and counts that fit its slots."""
    for bad in (
        {"fill_bytes": None},
        {"fill_fraction": (97, 100)},
        {"min_real": 21},
        {"max_real": 25},
        {"layers": 0},
        {"stages": 10_000},
    ):
        with pytest.raises(OutOfRange):
            Profile(**{"name": "x", "layers": 2, "stages": 2, "fill_bytes": 1 << 20} | bad)
    with pytest.raises(OutOfRange):
        profile("nonsense")
