"""What is new in a sliding tail."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chutes_core.validator.launches.logs import GAP, fresh, last_lines


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(st.lists(st.integers(0, 10**9), max_size=60), st.integers(100, 400), st.integers(0, 900))
def test_a_reader_sees_every_line_once(numbers, window, cut):
    """Where the tail still holds what was seen last, old and new parts make the whole again."""
    whole = "".join(f"{index}:{number}\n" for index, number in enumerate(numbers))
    cut = min(cut, len(whole))
    before, now = whole[:cut][-window:], whole[-window:]
    shown = fresh(before, now)
    if len(whole) - cut <= window - 40:  # a line and more of what was seen is still there
        assert whole[:cut] + shown == whole
    else:
        assert now.endswith(shown.removeprefix(GAP))


def test_a_jump_over_the_tail_is_told():
    """Where more was printed than the tail holds, the gap is named."""
    assert fresh("a\nb\n", "x\ny\n") == GAP + "x\ny\n"


def test_backfill_counts_lines():
    """Only as many of the last lines are shown as were asked for."""
    assert last_lines("a\nb\nc\n", 2) == "b\nc\n"
    assert last_lines("a\nb\n", 0) == ""
