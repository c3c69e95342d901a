"""Store records to the inputs of the score."""

from dataclasses import replace

from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.domain.launches import Launch
from chutes_core.validator.domain.spans import ActiveSpan
from chutes_core.validator.scoring.score import WINDOW_US
from chutes_core.validator.scoring.window import work_of

NOW_US = 10 * WINDOW_US
LAUNCH = Launch(
    launch_id="l1",
    chute_id="c",
    version="v",
    image_id="i",
    miner_hotkey="hot",
    miner_coldkey="cold",
    registered_at_block=3,
    node_id="n",
    gpu_uuids=("g0", "g1"),
    gpu_class="l4",
    relay_host="127.0.0.1",
    relay_port=1,
    profile="test",
    stand_in=True,
    requested_at_s=0,
    deadline_s=0,
)
CALL = Invocation(
    worker="w",
    sequence=1,
    invocation_id="i",
    user_id="user",
    key_id="k",
    chute_id="c",
    launch_id="l1",
    rate_id="r",
    rao_per_hour=3_600_000_000,
    hold_rao=500,
    free=False,
    started_at_us=NOW_US - 1,
    usage_us=100,
    bytes_in=0,
    bytes_out=0,
    attempts=1,
    status=200,
    outcome="ok",
)


def work(invocations=(CALL,), conflicted=()):
    """Return the work of one launch."""
    return work_of(
        [ActiveSpan(LAUNCH, 5, 9)],
        invocations,
        coldkey_of_user={"user": "payer"},
        conflicted=conflicted,
        now_us=NOW_US,
        block=1,
        block_ms=1,
        tao_usd_micros=1,
    )


def test_a_span_takes_its_facts_from_the_launch():
    """Miner, registration, class and count come from the launch's record."""
    (span,) = work().spans
    assert (span.launch_id, span.miner_hotkey, span.registered_at_block) == ("l1", "hot", 3)
    assert (span.gpu_class, span.gpu_count, span.from_us, span.to_us) == ("l4", 2, 5, 9)
    assert not span.conflicted


def test_one_conflicting_gpu_marks_the_launch():
    """A double lease of one GPU voids the whole launch; another miner's does not."""
    assert work(conflicted=frozenset({("hot", "g1")})).spans[0].conflicted
    assert not work(conflicted=frozenset({("other", "g1")})).spans[0].conflicted


def test_a_call_counts_with_what_the_ledger_charges():
    """Same rate and rounding as billing, and never above the hold."""
    assert work().calls[0].charge_rao == 100
    assert work([replace(CALL, usage_us=10_000)]).calls[0].charge_rao == 500
    assert work().calls[0].payer_coldkey == "payer"


def test_calls_that_cost_nothing_are_left_out():
    """Free, failed and old calls are not in the input."""
    nothing = [
        replace(CALL, free=True),
        replace(CALL, outcome="failed"),
        replace(CALL, outcome="chute_error"),
        replace(CALL, started_at_us=NOW_US - WINDOW_US - 1),
        replace(CALL, started_at_us=NOW_US),
    ]
    assert work(nothing).calls == ()


def test_an_unknown_payer_has_no_coldkey():
    """A user whose coldkey nobody knows owns no miner."""
    assert work([replace(CALL, user_id="stranger")]).calls[0].payer_coldkey == ""


def test_calls_of_one_payer_on_one_launch_are_summed():
    """As many calls as there are come to one entry each payer and launch, rounded call by call."""
    cheap = replace(CALL, usage_us=1, rao_per_hour=1)  # a part of a rao, rounded up to one
    calls = [cheap] * 3 + [replace(CALL, user_id="other"), replace(cheap, launch_id="l2")]
    sums = {(c.launch_id, c.payer_user_id): (c.usage_us, c.charge_rao) for c in work(calls).calls}
    assert sums == {("l1", "user"): (3, 3), ("l1", "other"): (100, 100), ("l2", "user"): (1, 1)}
    assert len(work(calls).calls) == 3
