"""Weights become incentive; incentive becomes stake."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.devnet.epoch import ALPHA_PER_BLOCK
from chutes_core.devnet.yuma import EpochInput, compute

MAX = 65_535


def epoch_input(stake, weights, *, counts=None, last_update=None, registered=None, **more):
    size = len(stake)
    return EpochInput(
        stake=tuple(stake),
        counts=tuple(counts or [True] * size),
        last_update=tuple(last_update or [10] * size),
        registered=tuple(registered or [0] * size),
        weights=weights,
        **more,
    )


def test_incentive_is_the_stake_weighted_sum_of_normalised_rows():
    """Two validators of equal stake: half is a majority, so nothing is clipped."""
    result = compute(epoch_input([20, 20, 0, 0], {0: [(2, 7)], 1: [(2, 3), (3, 9)]}))
    assert result.incentive == (0, 0, MAX * 5 // 8, MAX * 3 // 8)
    assert result.trust == (MAX, MAX, 0, 0)


def test_a_minority_is_clipped_to_what_the_majority_grants():
    """Three to one in stake, of opposite opinions: the lesser one moves nothing, earns nothing."""
    result = compute(epoch_input([30, 10, 0, 0], {0: [(2, 7)], 1: [(3, 9)]}))
    assert result.incentive == (0, 0, MAX, 0)
    assert result.consensus == (0, 0, MAX, 0)
    assert result.trust == (MAX, 0, 0, 0)
    assert result.dividends == (MAX, 0, 0, 0)


def test_consensus_is_the_weighted_median():
    """Of three equal validators the middle weight counts, and the outlier is cut to it."""
    rows = {0: [(3, 1), (4, 9)], 1: [(3, 5), (4, 5)], 2: [(3, 9), (4, 1)]}
    result = compute(epoch_input([10, 10, 10, 0, 0], rows))
    assert result.consensus == (0, 0, 0, pytest.approx(MAX // 2, abs=1), pytest.approx(MAX // 2, 1))
    assert result.incentive[3] == result.incentive[4]
    assert result.trust[1] == MAX
    assert result.trust[0] == result.trust[2] == pytest.approx(MAX * 6 // 10, abs=1)


def test_kappa_moves_the_majority():
    """With a low kappa a minority of a quarter is enough."""
    rows = {0: [(2, 7)], 1: [(3, 9)]}
    result = compute(epoch_input([30, 10, 0, 0], rows, kappa=MAX // 5))
    assert result.incentive == (0, 0, MAX * 3 // 4, MAX // 4)
    assert result.dividends == (MAX * 3 // 4, MAX // 4, 0, 0)


def test_bonds_move_slowly():
    """Who backed a miner first keeps earning from it for a while."""
    first = compute(epoch_input([10, 10, 0], {0: [(2, 1)]}))
    assert first.dividends == (MAX, 0, 0)
    assert first.bonds[0] == [(2, MAX)]
    both = {0: [(2, 1)], 1: [(2, 1)]}
    second = compute(epoch_input([10, 10, 0], both, bonds=first.bonds, last_epoch=5))
    assert second.dividends[0] == pytest.approx(MAX * 0.95, abs=2)
    assert second.dividends[1] == pytest.approx(MAX * 0.05, abs=2)


def test_bonds_die_with_the_registration():
    """A bond to a neuron that was there is nothing to the one that took its uid."""
    both = {0: [(2, 1)], 1: [(2, 1)]}
    given = epoch_input(
        [10, 10, 0], both, bonds={0: [(2, MAX)]}, last_epoch=5, registered=[0, 0, 5]
    )
    assert compute(given).dividends == (MAX // 2, MAX // 2, 0)


def test_zero_weights_give_zero_incentive():
    """No weights, weights of zero, and no stake behind them are all nothing."""
    for weights, stake in (({}, [5, 0]), ({0: [(1, 0)]}, [5, 0]), ({0: [(1, 9)]}, [0, 0])):
        result = compute(epoch_input(stake, weights))
        assert result.incentive == (0, 0)
        assert result.dividends == (0, 0)


def test_only_permitted_and_active_validators_count():
    """A row without a permit is ignored, whatever its stake."""
    result = compute(
        epoch_input([99, 1, 0, 0], {0: [(2, 1)], 1: [(3, 1)]}, counts=[False, True, True, True])
    )
    assert result.incentive == (0, 0, 0, MAX)


def test_a_weight_on_oneself_does_not_count():
    """Self-weights are dropped before the row is normalised."""
    result = compute(epoch_input([5, 0], {0: [(0, 9), (1, 1)]}))
    assert result.incentive == (0, MAX)


def test_weights_older_than_a_registration_do_not_reach_it():
    """Who takes over a uid does not inherit its weights."""
    stale = epoch_input(
        [5, 0, 0], {0: [(1, 1), (2, 1)]}, last_update=[10, 0, 0], registered=[0, 10, 9]
    )
    assert compute(stale).incentive == (0, 0, MAX)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_scores_never_sum_above_one(data):
    """Whatever the weights, incentive and dividends stay within 65535 in sum."""
    size = data.draw(st.integers(1, 8))
    small = st.integers(0, MAX)
    stake = data.draw(st.lists(st.integers(0, 10**18), min_size=size, max_size=size))
    row = st.lists(st.tuples(st.integers(0, size - 1), small), max_size=size)
    weights = data.draw(st.dictionaries(st.integers(0, size - 1), row))
    result = compute(epoch_input(stake, weights))
    assert sum(result.incentive) <= MAX
    assert sum(result.dividends) <= MAX
    assert min(result.incentive) >= 0
    assert max((*result.consensus, *result.trust)) <= MAX
    columns = [dict(row) for row in result.bonds.values()]
    assert all(sum(row.get(uid, 0) for row in columns) <= MAX + size for uid in range(size))


def set_weights(net, validator, dests, weights):
    call = {"netuid": 1, "dests": dests, "weights": weights, "version_key": 0}
    return net.run(f"//{validator}//hotkey", "SubtensorModule", "set_weights", **call)


def test_an_epoch_runs_every_tempo(net):
    """LastEpochBlock moves by the tempo, the index by one."""
    net.blocks(10 - net.chain.best.number)
    assert (net.get("LastEpochBlock", 1), net.get("SubnetEpochIndex", 1)) == (10, 1)
    net.blocks(9)
    assert (net.get("LastEpochBlock", 1), net.get("BlocksSinceLastStep", 1)) == (10, 9)
    net.blocks(1)
    assert (net.get("LastEpochBlock", 1), net.get("SubnetEpochIndex", 1)) == (20, 2)


def test_miners_are_paid_into_stake_by_their_incentive(net):
    """A weighted miner's stake grows, an idle one's does not."""
    for miner in ("//Miner1", "//Miner2", "//Miner3"):
        net.register(miner)
    set_weights(net, "Validator1", [3, 4], [1, 3])
    set_weights(net, "Validator2", [3, 4], [3, 1])
    net.blocks(10 - net.chain.best.number)
    incentive = net.get("Incentive", 1)
    assert incentive == [0, 0, 0, pytest.approx(MAX // 2, abs=1), pytest.approx(MAX // 2, abs=1), 0]
    staked = [
        net.get("TotalHotkeyAlpha", net.address(f"//Miner{number}//hotkey"), 1)
        for number in (1, 2, 3)
    ]
    assert staked[0] > 0
    assert staked[1] > 0
    assert staked[2] == 0
    emission = net.get("Emission", 1)
    assert emission[3:5] == staked[:2]
    assert sum(emission) <= ALPHA_PER_BLOCK * 10


def test_miner_emission_to_the_owner_is_burned(net):
    """Weights on the owner's uid show as incentive but mint nothing for it."""
    set_weights(net, "Validator1", [0], [1])
    owner_hotkey = net.address("//Owner//hotkey")
    net.blocks(10 - net.chain.best.number)
    assert net.get("Incentive", 1)[0] == MAX
    assert net.get("Emission", 1)[0] == 0
    cut = ALPHA_PER_BLOCK * 10 * net.get("SubnetOwnerCut") // MAX
    assert net.get("TotalHotkeyAlpha", owner_hotkey, 1) == cut


def test_an_epoch_without_weights_pays_only_the_owners_cut(net):
    """Nobody worked, nobody is paid."""
    net.blocks(10)
    assert net.get("Incentive", 1) == [0, 0, 0]
    assert net.get("Emission", 1) == [0, 0, 0]


def test_permits_follow_stake(net):
    """A validator that withdraws below the threshold loses its permit at the epoch."""
    hotkey = net.address("//Validator2//hotkey")
    amount = net.get("TotalHotkeyAlpha", hotkey, 1) - 1
    call = {"hotkey": hotkey, "netuid": 1, "amount_unstaked": amount}
    net.run("//Validator2", "SubtensorModule", "remove_stake", **call)
    assert net.get("ValidatorPermit", 1) == [False, True, True]
    net.blocks(10)
    assert net.get("ValidatorPermit", 1) == [False, True, False]
