"""Store records to the inputs of the score."""

from dataclasses import replace

from chutes_core.validator.domain.launches import Launch
from chutes_core.validator.domain.spans import ActiveSpan, PaidSum
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
PAID = PaidSum("l1", "user", 100, 500)


def work(paid=(PAID,), conflicted=()):
    """Return the work of one launch."""
    return work_of(
        [ActiveSpan(LAUNCH, 5, 9)],
        paid,
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


def test_a_payer_is_named_with_its_coldkey():
    """The sums stand as they are; a user whose coldkey nobody knows owns no miner."""
    (known,) = work().paid
    assert (known.usage_us, known.charge_rao, known.payer_coldkey) == (100, 500, "payer")
    assert work([replace(PAID, user_id="stranger")]).paid[0].payer_coldkey == ""
