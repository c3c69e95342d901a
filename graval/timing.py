"""How long a challenge may take: references per class of GPU, and deadlines from them.

    D1 = 1.30 x reference + allowance        leg 1: fill and one stage
    D2 = 1.10 x reference + allowance        leg 2: S stages
    allowance = min(round trip, 5 % of the deadline)

The far side can delay pings, so a round trip is believed only up to 5 % of the deadline, and the
number of stages grows with it (`stretch`) until the whole round trip fits. All times are integers
of microseconds; nothing here reads a clock.

Sources: H100 SXM and H200 were measured with this code by `python -m graval calibrate` (p50 of 30
warm challenges, 97 % of memory; docs/measurements). The rest is predicted from the protocol's
prototype with the H100's utilisation for all; each reference says which.
"""

from dataclasses import dataclass

from graval.errors import NoReference, OutOfRange, RoundTripTooLong
from graval.gpus import GPUS, model
from graval.profile import MAX_STAGES, PROFILES, Profile

LEG1_SLACK_PERCENT = 130
LEG2_SLACK_PERCENT = 110
ALLOWANCE_DIVISOR = 19  # base / 19 is 5 % of base + base / 19
MAX_ROUND_TRIP_US = 10_000_000

TEST_LEG1_US = 10_000_000
TEST_LEG2_US = 10_000_000
"""The test profile's fixed reference: it takes about 0.06 s on one idle core, and a test machine
may be a hundred times busier. It bounds a hang; it says nothing about speed."""

_HOST_US_A_STAGE = 520  # SHAKE, copy, gather, BLAKE2b; measured beside the H100
_STAGES = 16


@dataclass(frozen=True)
class Reference:
    """How long an honest GPU of a class takes, in microseconds.

    `basis` is ``measured`` (on the device, driver and date named), ``derived`` (computed from a
    measured figure of the same device), ``predicted`` (from datasheet rates, never run) or
    ``fixed`` (the CPU stand-in). `leg2_us` is for `stages` stages. `backend` is ``triton``, or
    ``torch``: the fallback's own figures, 16 times slower, which show no class of compute.
    """

    gpu: str
    profile: str
    leg1_us: int
    leg2_us: int
    stages: int
    basis: str
    device: str = ""
    driver: str = ""
    date: str = ""
    backend: str = "triton"
    versions: str = ""


@dataclass(frozen=True)
class Deadlines:
    """When each leg's answer is due, counted from its sending, in microseconds.

    The two allowances are the shares of the deadlines that pay for the round trip.
    """

    leg1_us: int
    leg2_us: int
    rtt_us: int
    leg1_allowance_us: int
    leg2_allowance_us: int


# measured p50: periodic leg 1, leg 2; admission leg 1, leg 2; light leg 1, leg 2 (us)
_MEASURED = {
    "h100_sxm": (1_082_204, 434_100, 2_090_747, 436_574, 20_537, 3_156),
    "h200": (1_904_786, 509_583, 3_722_271, 509_345, 15_651, 1_640),
}
_MEASURED_DEVICE = {
    "h100_sxm": "NVIDIA H100 80GB HBM3, 700 W",
    "h200": "NVIDIA H200, 700 W",
}
_MEASURED_DRIVER = "580.159.04"
_MEASURED_DATE = "2026-11-24"
_MEASURED_VERSIONS = "graval 1, python 3.12.3, torch 2.11.0+cu130, triton 3.6.0"

# the torch fallback, measured with one challenge: periodic leg 1, leg 2 (us)
_FALLBACK = {"h100_sxm": (17_486_342, 6_528_899)}

# predicted at T = 8 with the H100's utilisation: leg 1, leg 2 (us); 16 stages
_PREDICTED = {
    "a10": (2_720_000, 650_000),
    "l4": (2_850_000, 1_310_000),
    "3090": (2_510_000, 440_000),
    "4090": (1_090_000, 410_000),
    "5090": (1_150_000, 310_000),
    "a6000": (4_640_000, 1_080_000),
    "a6000_ada": (2_000_000, 860_000),
    "l40s": (1_890_000, 910_000),
    "a100_40gb": (1_920_000, 440_000),
    "a100": (3_830_000, 680_000),
    "h100": (1_600_000, 680_000),
    "b200": (1_210_000, 390_000),
}


def _of_class(gpu: str) -> list[Reference]:
    """The references of one class for every profile but the test one."""
    measured = _MEASURED.get(gpu)
    if measured is not None:
        source = (_MEASURED_DEVICE[gpu], _MEASURED_DRIVER, _MEASURED_DATE, "triton")
        return [
            Reference(
                gpu,
                name,
                measured[2 * at],
                measured[2 * at + 1],
                PROFILES[name].stages,
                "measured",
                *source,
                _MEASURED_VERSIONS,
            )
            for at, name in enumerate(("periodic", "admission", "light"))
        ]
    if gpu in _PREDICTED:
        leg1_us, leg2_us = _PREDICTED[gpu]
        stage_us = leg2_us // _STAGES
        long_us = 2 * (leg1_us - stage_us) + stage_us  # twice the layers, one stage
        return [
            Reference(gpu, "periodic", leg1_us, leg2_us, _STAGES, "predicted"),
            Reference(gpu, "admission", long_us, leg2_us, _STAGES, "predicted"),
            _light(gpu, leg1_us, leg2_us, "predicted"),
        ]
    return []


def _light(gpu: str, leg1_us: int, leg2_us: int, basis: str) -> Reference:
    """Scale a T = 8 figure of a full fill down to the light profile's rows."""
    light = PROFILES["light"]
    full_rows = PROFILES["periodic"].rows(GPUS[gpu].memory_bytes)
    rows = light.rows(0)
    stage_us = leg2_us // _STAGES
    scan_us = max(0, stage_us - _HOST_US_A_STAGE) * rows // full_rows + _HOST_US_A_STAGE
    fill_us = (leg1_us - stage_us) * rows // full_rows
    return Reference(gpu, "light", fill_us + scan_us, scan_us * light.stages, light.stages, basis)


def _of_fallback(gpu: str) -> list[Reference]:
    """The torch backend's references of one class, from its one measured challenge."""
    if gpu not in _FALLBACK:
        return []
    leg1_us, leg2_us = _FALLBACK[gpu]
    stage_us = leg2_us // _STAGES
    source = (_MEASURED_DEVICE[gpu], _MEASURED_DRIVER, _MEASURED_DATE, "torch", _MEASURED_VERSIONS)
    long_us = 2 * (leg1_us - stage_us) + stage_us  # twice the layers, one stage
    light = _light(gpu, leg1_us, leg2_us, "derived")
    return [
        Reference(gpu, "periodic", leg1_us, leg2_us, _STAGES, "measured", *source),
        Reference(gpu, "admission", long_us, leg2_us, _STAGES, "derived", *source),
        Reference(gpu, "light", light.leg1_us, light.leg2_us, light.stages, "derived", *source),
    ]


def references(backend: str = "triton") -> list[Reference]:
    """Every reference of a backend, by class and profile; the test profile's is not among them."""
    of_class = _of_fallback if backend == "torch" else _of_class
    return [r for gpu in GPUS for r in of_class(gpu)]


def reference(gpu: str, profile: str, backend: str = "triton") -> Reference:
    """The reference of a class of GPU for a profile.

    The test profile has one fixed, generous CPU reference for every class (`TEST_LEG1_US`).

    Raises:
        UnknownDevice: no such class.
        NoReference: the class is known but not calibrated for this profile and backend.
    """
    known = model(gpu)
    if profile == "test":
        stages = PROFILES["test"].stages
        return Reference(gpu, "test", TEST_LEG1_US, TEST_LEG2_US, stages, "fixed", "CPU")
    of_class = _of_fallback if backend == "torch" else _of_class
    for found in of_class(known.short_name):
        if found.profile == profile:
            return found
    raise NoReference(
        "no_reference",
        f"{gpu} has no timing reference for profile {profile!r} and backend {backend!r}",
        hint="a class counts only for what its numbers prove; measure one first",
    )


def _allowance_us(base_us: int, rtt_us: int) -> int:
    return min(rtt_us, base_us // ALLOWANCE_DIVISOR)


def _leg2_base_us(profile: Profile, reference: Reference) -> int:
    return reference.leg2_us * profile.stages // reference.stages * LEG2_SLACK_PERCENT // 100


def _check(profile: Profile, reference: Reference, rtt_us: int) -> None:
    if profile.name != reference.profile:
        raise OutOfRange(
            "reference", f"a reference for {reference.profile!r} fits no other profile"
        )
    if not 0 <= rtt_us <= MAX_ROUND_TRIP_US:
        raise OutOfRange("round_trip", "the round trip is negative or over ten seconds")


def deadlines(profile: Profile, reference: Reference, rtt_us: int) -> Deadlines:
    """When the answers are due, with the round trip believed up to 5 % of each deadline.

    Args:
        profile: the profile as sent, after `stretch`.
        reference: of the claimed class, for this profile.
        rtt_us: the least of five pings on the same connection.

    Raises:
        OutOfRange: the reference is another profile's, or the round trip makes no sense.
    """
    _check(profile, reference, rtt_us)
    leg1_us = reference.leg1_us * LEG1_SLACK_PERCENT // 100
    leg2_us = _leg2_base_us(profile, reference)
    allowance1_us, allowance2_us = _allowance_us(leg1_us, rtt_us), _allowance_us(leg2_us, rtt_us)
    return Deadlines(
        leg1_us=leg1_us + allowance1_us,
        leg2_us=leg2_us + allowance2_us,
        rtt_us=rtt_us,
        leg1_allowance_us=allowance1_us,
        leg2_allowance_us=allowance2_us,
    )


def stretch(profile: Profile, reference: Reference, rtt_us: int) -> Profile:
    """The profile with enough stages that the whole round trip is at most 5 % of D2.

    Raises:
        OutOfRange: the reference is another profile's, or the round trip makes no sense.
        RoundTripTooLong: more than `MAX_STAGES` stages would be needed.
    """
    _check(profile, reference, rtt_us)
    for stages in range(profile.stages, MAX_STAGES + 1):
        stretched = profile.with_stages(stages)
        if _leg2_base_us(stretched, reference) // ALLOWANCE_DIVISOR >= rtt_us:
            return stretched
    raise RoundTripTooLong(
        "round_trip_too_long",
        f"a round trip of {rtt_us} us is too long for profile {profile.name!r} on {reference.gpu}",
        hint="ask for a profile with more work, or from closer by",
    )
