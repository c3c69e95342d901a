"""From scores to the vector that the chain takes."""

import pytest

from chutes_core.base.errors import Invalid
from chutes_core.chain.metagraph import Metagraph, Neuron
from chutes_core.chain.subnet import Subnet
from chutes_core.validator.scoring.vector import to_weights

OWNER, OWN, ALICE, BOB, IDLE = range(5)
HOTKEYS = ("owner", "own", "alice", "bob", "idle")
METAGRAPH = Metagraph(
    50,
    tuple(
        Neuron(uid, hotkey, f"cold-{hotkey}", 0, uid == OWN, 10 + uid, None, None, 0, 0)
        for uid, hotkey in enumerate(HOTKEYS)
    ),
)
ALICES, BOBS = ("alice", 10 + ALICE), ("bob", 10 + BOB)


def subnet(*, minimum=1, limit=65_535, owner="owner"):
    """Return a subnet with these limits."""
    return Subnet(
        netuid=1,
        block=50,
        tempo=20,
        weights_rate_limit=5,
        min_allowed_weights=minimum,
        max_weight_limit=limit,
        commit_reveal=False,
        weights_version=0,
        owner_hotkey=owner,
        last_epoch_block=40,
        next_epoch_block=60,
        block_ms=1_000,
        immunity_period=10,
        max_uids=256,
        neuron_count=5,
        registration_allowed=True,
        burn_rao=1,
    )


def weigh(scores, **limits):
    """Return the vector of the validator `own`."""
    return to_weights(scores, METAGRAPH, subnet(**limits), OWN)


def test_scores_become_proportional_weights():
    """The best gets 65535, the others their share of it."""
    assert weigh({ALICES: 4_000, BOBS: 1_000}) == {ALICE: 65_535, BOB: 16_383}


def test_a_small_score_keeps_a_weight():
    """Who did some work never rounds to nothing."""
    assert weigh({ALICES: 10**18, BOBS: 1}) == {ALICE: 65_535, BOB: 1}


def test_no_work_has_no_weight():
    """A miner with the score zero is not in the vector."""
    assert weigh({ALICES: 5, BOBS: 0}) == {ALICE: 65_535}


def test_a_uid_that_changed_hands_gets_nothing():
    """A score of an earlier registration does not go to the hotkey's new one, nor to its uid."""
    assert weigh({ALICES: 5, ("bob", 12): 500}) == {ALICE: 65_535}


def test_a_hotkey_that_left_gets_nothing():
    """A hotkey without a uid has no weight."""
    assert weigh({ALICES: 5, ("gone", 1): 500}) == {ALICE: 65_535}


def test_a_validator_never_weighs_itself():
    """Work of one's own hotkey does not count."""
    assert weigh({ALICES: 5, ("own", 10 + OWN): 500}) == {ALICE: 65_535}


@pytest.mark.parametrize("scores", [{}, {ALICES: 0}, {("gone", 1): 9}])
def test_nothing_measured_goes_to_the_owner(scores):
    """The burn convention: all weight to the subnet owner's uid, never uniform."""
    assert weigh(scores) == {OWNER: 65_535}


def test_nothing_measured_and_no_owner_sends_nothing():
    """Where the owner has no uid, or is oneself, there is no vector."""
    for owner in ("elsewhere", "own"):
        with pytest.raises(Invalid, match="no_burn_uid"):
            weigh({}, owner=owner)


def test_too_few_are_padded_with_the_owner():
    """The owner's uid fills up the count, at the smallest weight."""
    assert weigh({ALICES: 5}, minimum=2) == {OWNER: 1, ALICE: 65_535}


def test_beyond_the_owner_padding_has_weight_zero():
    """More padding counts for the minimum and gives nobody anything, least of all oneself."""
    assert weigh({ALICES: 5}, minimum=4) == {OWNER: 1, ALICE: 65_535, BOB: 0, IDLE: 0}


def test_padding_stops_at_the_subnets_size():
    """A minimum above the number of neurons asks for all others."""
    assert set(weigh({ALICES: 5}, minimum=1_024)) == {OWNER, ALICE, BOB, IDLE}


def test_the_largest_share_is_cut_and_spread_in_proportion():
    """With a limit of 60 percent, the rest keep their proportions."""
    limit = 39_321
    weights = weigh({ALICES: 900, BOBS: 60, ("idle", 10 + IDLE): 30}, limit=limit)
    assert max(weights.values()) * 65_535 <= limit * sum(weights.values())
    assert weights[ALICE] > weights[BOB] > weights[IDLE] > 0
    assert weights[BOB] / weights[IDLE] == pytest.approx(2, rel=0.001)
    assert weights[ALICE] / sum(weights.values()) == pytest.approx(0.6, rel=0.001)


def test_a_limit_that_no_vector_meets_sends_nothing():
    """One weight cannot be at most a tenth of its own sum."""
    with pytest.raises(Invalid, match="weights_infeasible"):
        weigh({ALICES: 5}, limit=6_553)
