"""Properties of the vector over any scores, metagraphs and limits."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chutes_core.base.errors import Invalid
from chutes_core.chain.metagraph import Metagraph, Neuron
from chutes_core.chain.subnet import U16_MAX, Subnet
from chutes_core.validator.scoring.vector import to_weights

# shared machines: how long an example takes says nothing about the code
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = [f"hot{n}" for n in range(12)]
miners = st.tuples(st.sampled_from(NAMES), st.integers(0, 3))
scores = st.dictionaries(miners, st.integers(0, 10**15), max_size=12)


@st.composite
def subnets(draw):
    """Draw a metagraph, a subnet with limits, and who one is."""
    hotkeys = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=2, max_size=12))
    neurons = tuple(
        Neuron(uid, hotkey, f"c{uid}", 0, False, draw(st.integers(0, 3)), None, None, 0, 0)
        for uid, hotkey in enumerate(hotkeys)
    )
    subnet = Subnet(
        netuid=1,
        block=50,
        tempo=20,
        weights_rate_limit=5,
        min_allowed_weights=draw(st.sampled_from([0, 1, 2, 5, 12, 1_024])),
        max_weight_limit=draw(st.one_of(st.just(U16_MAX), st.integers(1, U16_MAX))),
        commit_reveal=False,
        weights_version=0,
        owner_hotkey=draw(st.sampled_from(NAMES)),
        last_epoch_block=40,
        next_epoch_block=60,
        block_ms=1_000,
        immunity_period=10,
        max_uids=256,
        neuron_count=len(neurons),
        registration_allowed=True,
        burn_rao=1,
    )
    return Metagraph(50, neurons), subnet, draw(st.integers(0, len(neurons) - 1))


def vector(scores_, drawn):
    """Return the vector, or None where the limits admit none."""
    try:
        return to_weights(scores_, *drawn)
    except Invalid as error:
        if error.code not in ("no_burn_uid", "weights_infeasible"):
            raise
        return None


@unhurried
@given(scores, subnets())
def test_a_vector_obeys_every_rule_of_the_chain(scores_, drawn):
    """u16 values, known uids, a positive sum, the minimum count and the largest share."""
    metagraph, subnet, own_uid = drawn
    weights = vector(scores_, drawn)
    if weights is None:
        return
    assert sum(weights.values()) > 0
    assert all(0 <= value <= U16_MAX for value in weights.values())
    assert set(weights) <= {neuron.uid for neuron in metagraph.neurons}
    assert own_uid not in weights
    assert max(weights.values()) * U16_MAX <= subnet.max_weight_limit * sum(weights.values())
    others = len(metagraph.neurons) - 1
    assert len(weights) >= min(subnet.min_allowed_weights, others)


@unhurried
@given(scores, subnets())
def test_weight_goes_to_measured_registrations_and_the_owner_only(scores_, drawn):
    """A uid whose registration has no score, e.g. a re-registered one, gets no weight."""
    metagraph, subnet, _ = drawn
    weights = vector(scores_, drawn)
    if weights is None:
        return
    for uid, weight in weights.items():
        neuron = metagraph.by_uid(uid)
        measured = scores_.get((neuron.hotkey, neuron.registered_at_block), 0) > 0
        if weight and neuron.hotkey != subnet.owner_hotkey:
            assert measured


@unhurried
@given(scores, subnets())
def test_who_worked_gets_weight_in_order_of_score(scores_, drawn):
    """Every measured registration but oneself has a weight, and no smaller score a larger one."""
    metagraph, subnet, own_uid = drawn
    weights = vector(scores_, drawn)
    if weights is None:
        return
    ranked = sorted(
        (scores_.get((n.hotkey, n.registered_at_block), 0), weights.get(n.uid, 0))
        for n in metagraph.neurons
        if n.uid != own_uid and n.hotkey != subnet.owner_hotkey
    )
    assert [w for _, w in ranked] == sorted(w for _, w in ranked)
    assert all(weight > 0 for points, weight in ranked if points > 0)


@unhurried
@given(scores, subnets(), st.randoms(use_true_random=False))
def test_order_of_scores_does_not_matter(scores_, drawn, random):
    """The vector is a function of the set of scores."""
    pairs = list(scores_.items())
    random.shuffle(pairs)
    assert vector(dict(pairs), drawn) == vector(scores_, drawn)


@unhurried
@given(subnets())
def test_nothing_measured_burns(drawn):
    """Without scores, all weight is the owner's or there is no vector; never uniform."""
    metagraph, subnet, own_uid = drawn
    weights = vector({}, drawn)
    if weights is None:
        return
    owner = metagraph.by_hotkey(subnet.owner_hotkey)
    assert {uid for uid, weight in weights.items() if weight} == {owner.uid}
    assert owner.uid != own_uid


@unhurried
@given(scores, subnets())
def test_there_is_no_vector_only_where_none_is_possible(scores_, drawn):
    """Nothing is given up that equal weights could have met."""
    metagraph, subnet, own_uid = drawn
    if vector(scores_, drawn) is not None:
        return
    others = [n for n in metagraph.neurons if n.uid != own_uid]
    worked = {n.uid for n in others if scores_.get((n.hotkey, n.registered_at_block), 0) > 0}
    owner = {n.uid for n in others if n.hotkey == subnet.owner_hotkey}
    short = len(worked) < min(subnet.min_allowed_weights, len(metagraph.neurons))
    takers = worked | owner if short or not worked else worked
    assert not takers or len(takers) * subnet.max_weight_limit < U16_MAX
