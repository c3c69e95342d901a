"""Load traces through autoscale: in seconds up, to zero when nobody calls, and without flapping.

Each second of a trace gives the callers who begin a call that lasts a second. The world does what
the launches do: a wanted instance is active `START_S` after it was asked for, and instances are
drained where nothing is wanted any more (launches/keeper).
"""

import math
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.validator.autoscale.wanted import Load, target
from chutes_core.validator.domain.chutes import Chute, Selector
from chutes_core.validator.domain.demand import ChuteDemand

BEGIN_S = 1_700_000_000
START_S = 20
SHUTDOWN_S = 60
MAX_INSTANCES = 4
CHUTE = Chute(
    chute_id="c",
    version="v",
    user_id="u",
    username="bob",
    name="echo",
    slug="bob-echo",
    tagline="",
    readme="",
    public=False,
    standard_template=None,
    image_id="i",
    filename="echo.py",
    ref_str="echo:chute",
    code="",
    selector=Selector(),
    cords=(),
    concurrency=4,
    max_instances=MAX_INSTANCES,
    scaling_threshold_percent=75,
    shutdown_after_s=SHUTDOWN_S,
    created_at_s=BEGIN_S - 10_000,
    updated_at_s=BEGIN_S - 10_000,
)


@dataclass
class Run:
    """What a trace led to; times in seconds from its begin."""

    active: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    emptied: list[int] = field(default_factory=list)


def play(trace: list[int]) -> Run:
    run, coming = Run(), Counter[int]()
    active, last_call_s, waiting = 0, 0, 0
    for second, callers in enumerate(trace):
        now_s = BEGIN_S + second
        active += coming.pop(second, 0)
        present = callers + waiting
        if present:
            last_call_s = now_s
        in_flight = min(present, active * CHUTE.concurrency)
        waiting = present - in_flight
        demand = ChuteDemand(last_call_s, in_flight, waiting)
        load = Load(active, coming.total())
        wanted = target(CHUTE, demand, load, now_s=now_s)
        missing = wanted - load.active - load.coming
        if missing > 0:
            coming[second + START_S] += missing
            run.started += [second] * missing
        if wanted == 0 and active:
            active = 0
            run.emptied.append(second)
        run.active.append(active)
        run.wanted.append(wanted)
    return run


def quiet(seconds: int) -> list[int]:
    return [0] * seconds


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 2 * SHUTDOWN_S)), min_size=1, max_size=12)
)
def test_any_trace_ends_at_zero_and_never_empties_early(parts: list[tuple[int, int]]):
    """Whatever the load: nothing is emptied within the shutdown time of a call, or twice."""
    trace = [callers for callers, seconds in parts for _ in range(seconds)]
    trace += quiet(3 * SHUTDOWN_S + START_S + sum(trace) // CHUTE.concurrency)
    run = play(trace)
    assert max(run.active) <= MAX_INSTANCES
    assert run.active[-1] == run.wanted[-1] == 0
    for emptied in run.emptied:
        assert not any(trace[max(0, emptied - SHUTDOWN_S + 1) : emptied + 1])
    for one, two in zip(run.emptied, run.emptied[1:], strict=False):
        assert any(trace[one:two])


def test_a_first_caller_has_an_instance_as_soon_as_one_can_start():
    """The instance is asked for in the second in which the caller comes, once."""
    run = play([*quiet(5), 1, *quiet(200)])
    assert run.started == [5]
    assert run.active[5 + START_S] == 1


def test_a_step_of_load_is_followed_within_a_start():
    """From one caller to ten a second: all instances are asked for as soon as the step is seen."""
    before = [1, *quiet(START_S), *[1] * 30]
    step = len(before)
    run = play(before + [10] * 120)
    assert run.active[step - 1] == 1
    assert run.wanted[step] == math.ceil(10 / 3)
    assert run.active[step + START_S] == MAX_INSTANCES


@pytest.mark.parametrize("every_s", [START_S, START_S + 7, SHUTDOWN_S - 1])
def test_a_trickle_of_calls_keeps_its_one_instance(every_s: int):
    """Calls that come more often than the shutdown time never find the chute cold again."""
    trace = [int(second % every_s == 0) for second in range(20 * SHUTDOWN_S)]
    run = play(trace)
    assert run.started == [0]
    assert run.emptied == []


def test_load_around_the_threshold_does_not_flap():
    """An hour of noise just about where another instance is wanted starts each instance once."""
    rng = random.Random(5)
    run = play([rng.choice((2, 3, 4)) for _ in range(3600)])
    assert len(run.started) <= MAX_INSTANCES
    assert run.emptied == []


def test_bursts_farther_apart_than_the_shutdown_time_start_anew_each_time():
    """Once for each burst, and empty between them: paid for when used."""
    burst = [3] * 10 + quiet(3 * SHUTDOWN_S)
    run = play(burst * 5)
    assert len(run.emptied) == 5
    assert {second // len(burst) for second in run.started} == set(range(5))
    assert all(run.active[(n + 1) * len(burst) - 1] == 0 for n in range(5))


def test_a_day_of_working_hours_is_followed():
    """A slow wave (a day in an hour): up with it in the morning, nothing left at night."""
    wave = [max(0, round(12 * math.sin(second / 1800 * math.pi))) for second in range(1800)]
    run = play(wave + quiet(1800))
    assert max(run.active) == MAX_INSTANCES
    assert len(run.started) == MAX_INSTANCES
    assert len(run.emptied) == 1
