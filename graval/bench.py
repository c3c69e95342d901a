"""Measuring a prover on this machine: whole challenges, answered and checked, against ceilings.

Where on its path: `python -m graval bench` prints a `Report`; `calibrate` keeps of it what
`graval.timing` wants. Every challenge has decoys and is built by the verifier before it is timed;
a wrong answer ends the run. Times are of the prover alone, from a leg's bytes to its answer's, and
where its class has a reference they are held to the deadlines of a round trip of nothing.

Source of the operation count: a row costs T layers of N x N products, two operations each.
"""

import hashlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

from graval import VERSION, prf
from graval.challenge import DeviceInfo, Leg1, Leg2, SeedContext
from graval.errors import NoReference, NotEnoughMemory, SelftestFailed, UnknownDevice
from graval.light import as_sent
from graval.params import PROFILES, Deadlines, Profile, Reference, deadlines, reference
from graval.prover.backend import Backend
from graval.prover.prove import Prover
from graval.verifier import Challenge, build_challenge

Clock = Callable[[], int]
"""Monotonic nanoseconds."""


@dataclass(frozen=True)
class Quantiles:
    """Of a set of times, in microseconds."""

    p50_us: int
    p99_us: int
    least_us: int
    most_us: int
    p999_us: int


@dataclass(frozen=True)
class ProfileReport:
    """What a profile took.

    `fill_tops` counts all of leg 1 (expansion of the seed, fill, one stage); `scan_tb_s` all of leg
    2 (hashing and copies on the host too).
    """

    profile: str
    layers: int
    stages: int
    rows: int
    share_of_memory: float
    challenges: int
    leg1: Quantiles
    leg2: Quantiles
    fill_tops: float
    scan_tb_s: float
    build_ms: float
    due1_us: int | None = None
    due2_us: int | None = None
    late: int | None = None
    """Challenges of which a leg missed its deadline; None where there is no reference."""


@dataclass(frozen=True)
class Report:
    """One run of the bench."""

    device: DeviceInfo
    backend: str
    date: str
    versions: dict[str, str]
    warm_up_s: float
    copy_tb_s: float | None
    int8_tops: float | None
    profiles: list[ProfileReport] = field(default_factory=list)


def run(
    backend: Backend,
    profiles: list[str],
    challenges: int,
    *,
    sent: bool = False,
    repeat: int = 1,
    clock: Clock = time.perf_counter_ns,
    note: Callable[[str], None] = lambda line: None,
) -> Report:
    """Warm a backend up and answer whole challenges of each profile.

    Args:
        backend: opened.
        profiles: names.
        challenges: of each profile.
        sent: the light profile as a validator sends it (`graval.light`), not as calibrated.
        repeat: each challenge is answered so often, to spare the verifier's time.
        clock: of the times.
        note: is told a line a profile.

    Raises:
        NotEnoughMemory: the device cannot run one of the profiles.
        SelftestFailed: an answer was not the verifier's.
    """
    copy_tb_s, int8_tops = _ceilings(backend)
    prover = Prover(backend)
    start = clock()
    warm = prover.warm_up()
    report = Report(
        device=warm.device,
        backend=warm.device.backend,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        versions=versions(),
        warm_up_s=round((clock() - start) / 1e9, 2),
        copy_tb_s=copy_tb_s,
        int8_tops=int8_tops,
    )
    for name in profiles:
        rows = warm.rows_for(name)
        if not rows:
            raise NotEnoughMemory("profile", f"this device cannot run profile {name!r}")
        work = _work(warm.device, PROFILES[name], sent=sent)
        count = (challenges, repeat)
        report.profiles.append(_measure(prover, warm.device, work, rows, count, clock))
        note(_line(report.profiles[-1]))
    prover.close()
    return report


def to_references(report: Report) -> list[Reference]:
    """What `graval.timing` keeps of a run: p50 of each profile, with where and when."""
    return [
        Reference(
            gpu=report.device.short_name,
            profile=of.profile,
            leg1_us=of.leg1.p50_us,
            leg2_us=of.leg2.p50_us,
            stages=of.stages,
            basis="measured",
            device=f"{report.device.name}, {report.device.power_limit_w} W",
            driver=report.device.driver,
            date=report.date,
            backend=report.backend,
            versions=", ".join(f"{name} {of}" for name, of in report.versions.items()),
        )
        for of in report.profiles
    ]


def versions() -> dict[str, str]:
    """Of everything that a figure depends on; torch and Triton where they are."""
    found = {"graval": str(VERSION), "python": platform.python_version()}
    for name in ("numpy", "torch", "triton"):
        try:
            found[name] = str(__import__(name).__version__)
        except ImportError:
            continue
    return found


def challenge_of(device: DeviceInfo, profile: Profile, rows: int) -> Challenge:
    """A fresh challenge as a validator would build it."""
    context = context_of(device, profile, rows)
    return build_challenge(context, profile, secret=os.urandom(32))


def context_of(device: DeviceInfo, profile: Profile, rows: int) -> SeedContext:
    """The seed's context of a fresh challenge between nobody and nobody."""
    return SeedContext(
        nonce=os.urandom(32),
        validator_hotkey="bench",
        miner_hotkey="bench",
        instance_id="bench",
        node_id="bench",
        instance_public_key=hashlib.blake2b(b"bench", digest_size=32).digest(),
        gpu_index=0,
        gpu_count=1,
        device=device,
        profile_name=profile.name,
        rows=rows,
        time_s=int(time.time()),
    )


def quantiles(times_us: list[int]) -> Quantiles:
    """p50 and p99 by nearest rank."""
    ordered = sorted(times_us)

    def rank(per_mille: int) -> int:
        return ordered[max(0, -(-len(ordered) * per_mille // 1000) - 1)]

    return Quantiles(rank(500), rank(990), ordered[0], ordered[-1], rank(999))


@dataclass(frozen=True)
class _Work:
    """What is asked, and the deadlines of the class, where it has a reference."""

    profile: Profile
    due: Deadlines | None


def _work(device: DeviceInfo, profile: Profile, *, sent: bool) -> _Work:
    try:
        known = reference(device.short_name, profile.name, device.backend)
    except (NoReference, UnknownDevice):
        return _Work(profile, None)
    if sent:
        profile, known = as_sent(profile, known)
    return _Work(profile, deadlines(profile, known, 0))


def _measure(
    prover: Prover,
    device: DeviceInfo,
    work: _Work,
    rows: int,
    count: tuple[int, int],
    clock: Clock,
) -> ProfileReport:
    profile, (challenges, repeat) = work.profile, count
    times: list[tuple[int, int]] = []
    builds = []
    for number in range(challenges + 1):
        start = clock()
        challenge = challenge_of(device, profile, rows)
        built = clock()
        answered = [_answer(prover, challenge, clock) for _ in range(repeat if number else 1)]
        if number:  # the first is a rehearsal
            builds.append((built - start) // 1000)
            times += answered
    leg1, leg2 = quantiles([one for one, _ in times]), quantiles([two for _, two in times])
    operations = rows * profile.layers * 2 * prf.N * prf.N
    due = work.due
    return ProfileReport(
        profile=profile.name,
        layers=profile.layers,
        stages=profile.stages,
        rows=rows,
        share_of_memory=round(rows * prf.ROW_BYTES / device.memory_bytes, 4),
        challenges=len(times),
        leg1=leg1,
        leg2=leg2,
        fill_tops=round(operations / leg1.p50_us / 1e6, 1),
        scan_tb_s=round(rows * prf.ROW_BYTES * profile.stages / leg2.p50_us / 1e6, 3),
        build_ms=round(quantiles(builds).p50_us / 1000, 1),
        due1_us=due.leg1_us if due else None,
        due2_us=due.leg2_us if due else None,
        late=sum(one > due.leg1_us or two > due.leg2_us for one, two in times) if due else None,
    )


def _answer(prover: Prover, challenge: Challenge, clock: Clock) -> tuple[int, int]:
    """Have both legs answered; their times in microseconds.

    Raises:
        SelftestFailed: an answer was not the verifier's.
    """
    start = clock()
    one = prover.answer_leg1(Leg1.from_bytes(challenge.leg1.to_bytes())).digest
    between = clock()
    two = prover.answer_leg2(Leg2.from_bytes(challenge.leg2.to_bytes())).digest
    end = clock()
    if (one, two) != (challenge.expected1, challenge.expected2):
        raise SelftestFailed("wrong_answer", f"{challenge} was answered wrong")
    return (between - start) // 1000, (end - between) // 1000


def _ceilings(backend: Backend) -> tuple[float | None, float | None]:
    """Measured copy bandwidth and int8 rate of a CUDA device; None for a stand-in."""
    if backend.device_info().stand_in:
        return None, None
    from graval.prover.ceilings import copy_tb_s, free_cache, int8_tops

    figures = copy_tb_s(backend.device_info().memory_bytes), int8_tops()
    free_cache()
    return figures


def _line(of: ProfileReport) -> str:
    late = "" if of.late is None else f", {of.late} of {of.challenges} late"
    return (
        f"{of.profile}: leg 1 {of.leg1.p50_us} / {of.leg1.p99_us} us, leg 2 {of.leg2.p50_us} / "
        f"{of.leg2.p99_us} us, {of.fill_tops} TOPS, {of.scan_tb_s} TB/s{late}"
    )
