"""The score, case by case, in numbers that one can follow on paper."""

from dataclasses import replace

import pytest

from chutes_core.base.errors import Invalid
from chutes_core.validator.scoring.score import DAY_US, WINDOW_US, GpuSpan, PaidWork, Work, score

HOUR_US = 3_600_000_000
NOW_US = 100 * DAY_US
BLOCKS_A_DAY = 7_200
MINER = ("hot", 0)
# l4: 0.25 USD an hour; at 100 USD per TAO an hour is worth 2,500,000 rao
HOUR_RAO = 2_500_000


def span(hours=10, **changes):
    """Return a span of one l4 that ended now."""
    made = GpuSpan("l1", "hot", 0, "cold", "l4", 1, NOW_US - hours * HOUR_US, NOW_US)
    return replace(made, **changes)


def call(hours=1, charge_rao=10**12, **changes):
    """Return a call by a stranger who paid more than enough."""
    made = PaidWork("l1", "user", "payer", int(hours * HOUR_US), charge_rao)
    return replace(made, **changes)


def work(spans, calls, *, block=100 * BLOCKS_A_DAY, tao_usd_micros=100_000_000):
    """Return the input of a score at a miner's age of 100 days."""
    return Work(NOW_US, block, 12_000, tao_usd_micros, tuple(spans), tuple(calls))


def points(*args, **kwargs):
    """Return the score of the one miner."""
    return score(work(*args, **kwargs)).get(MINER)


def test_work_is_table_price_times_twice_the_used_time_over_seven_days():
    """One hour used of ten counts as two hours, spread over seven days."""
    assert points([span(10)], [call(1)]) == 2 * HOUR_RAO // 7


def test_busy_half_of_the_time_is_fully_used():
    """From a busy share of a half on, the active time is the limit."""
    assert points([span(10)], [call(5)]) == points([span(10)], [call(9)]) == 10 * HOUR_RAO // 7


def test_several_gpus_count_each():
    """Eight GPUs are worth eight times one."""
    assert points([span(gpu_count=8)], [call(1)]) == 16 * HOUR_RAO // 7


def test_a_payers_part_is_capped_at_what_it_paid():
    """Time that was hardly paid for hardly counts."""
    assert points([span(10)], [call(5, charge_rao=700)]) == 100


def test_the_cap_is_each_payers_own():
    """What one payer overpays does not lift another payer's cap."""
    calls = [call(2.5, charge_rao=70), call(2.5, payer_user_id="rich")]
    assert points([span(10)], calls) == (70 + 5 * HOUR_RAO) // 7


def test_a_payer_that_owns_the_miner_is_not_scored():
    """Paying oneself gives nothing, and dilutes nobody else."""
    own = call(5, payer_user_id="self", payer_coldkey="cold")
    assert points([span(10)], [own]) == 0
    assert points([span(10)], [own, call(1)]) == points([span(10)], [call(1)])


def test_a_gpu_in_lease_conflict_earns_nothing():
    """The whole span of a double-leased GPU is void, and so is what was paid for it."""
    assert points([span(10, conflicted=True)], [call(5)]) == 0
    other = span(10, launch_id="l2", gpu_class="l4")
    calls = [call(5), call(5, charge_rao=7, launch_id="l2")]
    assert points([span(10, conflicted=True), other], calls) == 1


def test_no_call_no_score():
    """An instance that nobody used has the score zero."""
    assert points([span(10)], []) == 0


def test_a_call_without_attested_time_is_worth_nothing():
    """A call on an unknown launch, or with no active time, does not count."""
    assert score(work([], [call(1)])) == {}
    assert points([span(0)], [call(1)]) == 0


def test_time_before_the_window_does_not_count():
    """Only the last seven days are scored."""
    old = span(from_us=NOW_US - WINDOW_US - HOUR_US, to_us=NOW_US - WINDOW_US)
    assert points([old], [call(1)]) == 0


def test_overlapping_spans_of_a_launch_count_once():
    """The same time reported twice is the same time."""
    assert points([span(10), span(10), span(5)], [call(9)]) == points([span(10)], [call(9)])


def test_a_young_miner_is_measured_over_one_day_at_least():
    """An hour after registration, work is spread over a day, not over the hour."""
    fresh = replace(span(1), registered_at_block=100 * BLOCKS_A_DAY - 300)
    assert score(work([fresh], [call(1)])) == {("hot", fresh.registered_at_block): HOUR_RAO}


def test_age_between_a_day_and_a_week_is_the_divisor():
    """Three days after registration, the work of three days is spread over three days."""
    young = replace(span(9), registered_at_block=97 * BLOCKS_A_DAY)
    found = score(work([young], [call(9)]))
    assert found == {("hot", young.registered_at_block): 3 * HOUR_RAO}


def test_two_registrations_of_a_hotkey_are_two_miners():
    """What was earned before a re-registration stays with the old one."""
    again = span(10, launch_id="l2", registered_at_block=100)
    found = score(work([span(10), again], [call(1)]))
    assert found[MINER] > 0
    assert found["hot", 100] == 0


def test_a_launch_of_two_miners_is_refused():
    """Records that contradict each other set no weights."""
    with pytest.raises(Invalid, match="launch_of_two_miners"):
        score(work([span(1), span(1, miner_hotkey="other")], []))


def test_unknown_gpu_class_is_refused():
    """A class without a price cannot be scored."""
    with pytest.raises(Invalid, match="unknown_gpu_class"):
        score(work([span(gpu_class="abacus")], []))


def test_a_rate_of_zero_is_refused():
    """Without a TAO price there is no conversion."""
    with pytest.raises(Invalid, match="bad_rate"):
        score(work([], [], tao_usd_micros=0))
