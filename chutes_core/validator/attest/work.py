"""How much one challenge asks of one GPU, and what it is held to.

Path: attest/challenges -> here -> graval.params. A class with a reference is held to it. A class
without one is held to the slowest reference there is, scaled to its rows, and then counts only as
the best calibrated class whose figures it met (`proven_class`). So does a GPU whose prover runs on
the torch fallback, which has deadlines of its own: they bound a hang, and show no class. A light
challenge is made long enough to be timed over a network, and in a round long enough that two cannot
share one GPU.

Invariant: nothing here makes a deadline longer than the reference of the judged class allows.
"""

import contextlib
from dataclasses import dataclass, replace

from chutes_core.base.gpus import GPU_CLASSES
from graval.errors import GravalError, NoReference
from graval.gpus import GPUS
from graval.light import as_sent
from graval.params import (
    Deadlines,
    Profile,
    Reference,
    deadlines,
    profile,
    reference,
    references,
    stretch,
)
from graval.timing import LEG1_SLACK_PERCENT, LEG2_SLACK_PERCENT

UNCALIBRATED = "uncalibrated"
FALLBACK = "fallback"


@dataclass(frozen=True)
class Work:
    """A profile to challenge with, its reference and deadlines, and how often in a row."""

    profile: Profile
    known: Reference
    due: Deadlines
    rows: int
    passes: int


def work_for(
    asked: Profile,
    gpu_class: str,
    memory_bytes: int,
    *,
    rtt_us: int,
    least_us: int = 0,
    backend: str = "triton",
) -> Work:
    """Return what a GPU of this class is asked for.

    Args:
        asked: the profile as agreed.
        gpu_class: as claimed; its claims were checked.
        memory_bytes: as the device says.
        rtt_us: measured round trip; stages grow with it.
        least_us: the whole challenge takes an honest GPU so long at least.
        backend: of the prover, as the device says.

    Raises:
        GravalError: an unknown class, no reference at all, or a round trip too long.
    """
    rows = asked.rows(memory_bytes)
    known = _reference(asked, gpu_class, rows, backend)
    asked, known = as_sent(asked, known, least_us)
    stretched = stretch(asked, known, rtt_us)
    one_us = known.leg1_us + known.leg2_us * stretched.stages // known.stages
    passes = max(1, -(-least_us // max(1, one_us)))
    return Work(stretched, known, deadlines(stretched, known, rtt_us), rows, passes)


def leg1_us(profile_name: str, gpu_class: str) -> int:
    """Return how long leg 1 takes an honest GPU of a class; 0 where nobody can say."""
    try:
        asked, memory_bytes = profile(profile_name), GPUS[gpu_class].memory_bytes
        return _reference(asked, gpu_class, asked.rows(memory_bytes), "").leg1_us
    except (GravalError, KeyError):
        return 0


def proven_class(work: Work, gpu_class: str, leg1_us: int, leg2_us: int) -> str:
    """Return what an accepted GPU counts as: its own class, or the best one its figures prove.

    The figures of an uncalibrated or fallback one are scaled by rows to each calibrated class of
    no higher price; it counts as the dearest whose deadlines they would have met, or as nothing.
    """
    if work.known.basis not in (UNCALIBRATED, FALLBACK):
        return gpu_class
    met = [
        known.gpu
        for known in references()
        if known.profile == work.profile.name and _meets(work, known, leg1_us, leg2_us)
    ]
    most = _price(gpu_class)
    return max((gpu for gpu in met if _price(gpu) <= most), key=_price, default="")


def _meets(work: Work, known: Reference, leg1_us: int, leg2_us: int) -> bool:
    rows = work.profile.rows(GPUS[known.gpu].memory_bytes)
    due1_us = known.leg1_us * LEG1_SLACK_PERCENT // 100
    due2_us = known.leg2_us * work.profile.stages // known.stages * LEG2_SLACK_PERCENT // 100
    return (
        work.rows >= rows
        and leg1_us * rows <= due1_us * work.rows
        and leg2_us * rows <= due2_us * work.rows
    )


def _price(gpu_class: str) -> int:
    known = GPU_CLASSES.get(gpu_class)
    return 0 if known is None else known.usd_micros_per_hour


def _reference(asked: Profile, gpu_class: str, rows: int, backend: str) -> Reference:
    if backend == "torch":
        with contextlib.suppress(NoReference):
            return replace(reference(gpu_class, asked.name, backend), basis=FALLBACK)
    try:
        return reference(gpu_class, asked.name)
    except NoReference:
        every = [known for known in references() if known.profile == asked.name]
        if not every:
            raise
    sizes = [asked.rows(GPUS[known.gpu].memory_bytes) for known in every]
    stages = every[0].stages
    return Reference(
        gpu=gpu_class,
        profile=asked.name,
        leg1_us=max(k.leg1_us * rows // size for k, size in zip(every, sizes, strict=True)),
        leg2_us=max(
            k.leg2_us * stages // k.stages * rows // size
            for k, size in zip(every, sizes, strict=True)
        ),
        stages=stages,
        basis=UNCALIBRATED,
    )
