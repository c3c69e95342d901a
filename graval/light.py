"""The light challenge as it is sent: long enough that its deadlines mean something.

Where on its path: the verifier lengthens the light profile with `as_sent` before it stretches it
to the round trip; `graval.bench` measures what is sent. Four stages over 1 GiB take an H100 3 ms,
of which 10 % is less than a process's own jitter: its p99 was 18 % over its median (docs/graval.md,
section 4). So layers and stages are multiplied until a leg takes tens of milliseconds.

Invariant: the reference grows exactly by the work that is asked for.
"""

from dataclasses import replace

from graval.profile import MAX_LAYERS, MAX_STAGES, Profile
from graval.timing import Reference

LIGHT_LEG1_US = 60_000
LIGHT_LEG2_US = 40_000
"""A light leg takes an honest GPU so long at least: 10 % of it must be more than jitter."""
LIGHT_REAL = (3, 6)
"""Real tags in a stage of a light leg 2: it claims no capacity, and needles cost the verifier."""


def as_sent(asked: Profile, known: Reference, least_us: int = 0) -> tuple[Profile, Reference]:
    """Return a profile and its reference as a challenge uses them; only the light one changes.

    A fill's time is proportional to its layers; the rest of leg 1 is one scan.

    Args:
        asked: the profile.
        known: its reference for the class in question.
        least_us: both legs together take an honest GPU about so long at least.
    """
    if asked.name != "light":
        return asked, known
    scan_us = max(1, known.leg2_us // known.stages)
    fill_us = max(1, known.leg1_us - scan_us)
    wanted_us = max(LIGHT_LEG1_US, least_us // 2)
    layers = min(MAX_LAYERS, asked.layers * max(1, -(-wanted_us // fill_us)))
    stages = min(MAX_STAGES, max(asked.stages, -(-LIGHT_LEG2_US // scan_us)))
    longer = replace(
        asked, layers=layers, stages=stages, min_real=LIGHT_REAL[0], max_real=LIGHT_REAL[1]
    )
    return longer, replace(known, leg1_us=fill_us * layers // asked.layers + scan_us)
