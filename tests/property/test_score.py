"""Properties of the score over any records."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chutes_core.base.gpus import GPU_CLASSES
from chutes_core.validator.domain.money import rao_per_hour
from chutes_core.validator.scoring.score import (
    DAY_US,
    MICROSECONDS_PER_HOUR,
    WINDOW_US,
    GpuSpan,
    PaidWork,
    Work,
    score,
)

# shared machines: how long an example takes says nothing about the code
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NOW_US = 50 * DAY_US
LAUNCHES = {  # launch -> (hotkey, registration block, coldkey, class, GPUs)
    "l0": ("hot0", 10, "cold0", "l4", 1),
    "l1": ("hot0", 10, "cold0", "h100_sxm", 8),
    "l2": ("hot1", 300_000, "cold1", "4090", 2),
    "l3": ("hot0", 359_000, "cold0", "l4", 1),
}
BLOCK = 360_000
times = st.integers(NOW_US - 9 * DAY_US, NOW_US + DAY_US)


@st.composite
def spans(draw):
    """Draw a span of one of the launches."""
    launch = draw(st.sampled_from(sorted(LAUNCHES)))
    start, end = draw(times), draw(times)
    return GpuSpan(launch, *LAUNCHES[launch], start, end, draw(st.booleans()))


calls = st.builds(
    PaidWork,
    launch_id=st.sampled_from([*sorted(LAUNCHES), "unknown"]),
    payer_user_id=st.sampled_from(["u0", "u1", "u2"]),
    payer_coldkey=st.sampled_from(["cold0", "cold1", "payer", ""]),
    usage_us=st.integers(0, DAY_US),
    charge_rao=st.integers(0, 10**12),
)
works = st.builds(
    Work,
    now_us=st.just(NOW_US),
    block=st.just(BLOCK),
    block_ms=st.just(12_000),
    tao_usd_micros=st.integers(1, 10**10),
    spans=st.lists(spans(), max_size=8).map(tuple),
    paid=st.lists(calls, max_size=12).map(tuple),
)


@unhurried
@given(works, st.randoms(use_true_random=False))
def test_order_of_records_does_not_matter(work, random):
    """Any permutation of the records gives the same scores in the same order."""
    spans_, calls_ = list(work.spans), list(work.paid)
    random.shuffle(spans_)
    random.shuffle(calls_)
    shuffled = replace(work, spans=tuple(spans_), paid=tuple(calls_))
    assert list(score(shuffled).items()) == list(score(work).items())


@unhurried
@given(works)
def test_scores_are_non_negative_and_only_of_miners_that_were_active(work):
    """Nobody goes below zero, and nobody without a span has a score."""
    known = {(span.miner_hotkey, span.registered_at_block) for span in work.spans}
    found = score(work)
    assert set(found) == known
    assert all(points >= 0 for points in found.values())


@unhurried
@given(works)
def test_zero_work_gives_zero(work):
    """Without paid calls every score is zero; with conflicts everywhere as well."""
    assert not any(score(replace(work, paid=())).values())
    void = tuple(replace(span, conflicted=True) for span in work.spans)
    assert not any(score(replace(work, spans=void)).values())


@unhurried
@given(works, st.data())
def test_the_cap_is_monotone(work, data):
    """Paying more for the same calls never lowers a score; paying nothing makes it zero."""
    lower = tuple(
        replace(call, charge_rao=data.draw(st.integers(0, call.charge_rao))) for call in work.paid
    )
    before, after = score(replace(work, paid=lower)), score(work)
    assert all(before[miner] <= after[miner] for miner in after)
    free = tuple(replace(call, charge_rao=0) for call in work.paid)
    assert not any(score(replace(work, paid=free)).values())


@unhurried
@given(works)
def test_no_miner_scores_more_than_was_paid_or_was_there(work):
    """Over its age, a score stays below what strangers paid and what its GPUs were worth."""
    for miner, points in score(work).items():
        own = {s.launch_id for s in work.spans if (s.miner_hotkey, s.registered_at_block) == miner}
        coldkey = {LAUNCHES[launch][2] for launch in own}
        paid = sum(
            call.charge_rao
            for call in work.paid
            if call.launch_id in own and call.payer_coldkey not in coldkey
        )
        capacity = sum(
            rao_per_hour(
                GPU_CLASSES[span.gpu_class].usd_micros_per_hour,
                span.gpu_count,
                work.tao_usd_micros,
            )
            * max(0, min(span.to_us, NOW_US) - max(span.from_us, NOW_US - WINDOW_US))
            // MICROSECONDS_PER_HOUR
            + 1
            for span in work.spans
            if span.launch_id in own and not span.conflicted
        )
        assert points <= paid
        assert points <= capacity


@unhurried
@given(works, calls)
def test_a_self_paying_call_changes_nothing(work, call):
    """A call paid by the miner's own coldkey moves no score."""
    if call.launch_id in LAUNCHES:
        own = replace(call, payer_coldkey=LAUNCHES[call.launch_id][2])
        assert score(replace(work, paid=(*work.paid, own))) == score(work)


@given(work=works)
def test_sums_by_launch_and_payer_score_as_their_calls_do(work):
    """So the store may keep sums: no call by itself moves the score."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for one in work.paid:
        found = sums.setdefault((one.launch_id, one.payer_user_id, one.payer_coldkey), [0, 0])
        found[0] += max(one.usage_us, 0)
        found[1] += max(one.charge_rao, 0)
    together = tuple(PaidWork(*key, *found) for key, found in sums.items())
    assert score(replace(work, paid=together)) == score(work)
