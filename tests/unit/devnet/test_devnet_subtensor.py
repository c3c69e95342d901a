"""What SubtensorModule's calls do, and the order in which they refuse."""

import hashlib

import pytest

from chutes_core.base.units import RAO_PER_TAO
from chutes_core.devnet.genesis import BURN_RAO
from chutes_core.devnet.pallets.subtensor import neurons, registration

VALIDATOR = "//Validator1//hotkey"
AXON = {
    "netuid": 1,
    "version": 1,
    "ip": 0x7F000001,
    "port": 8091,
    "ip_type": 4,
    "protocol": 4,
    "placeholder1": 0,
    "placeholder2": 0,
}


def set_weights(net, uri=VALIDATOR, dests=(3,), weights=(1,), version_key=0, netuid=1):
    return net.run(
        uri,
        "SubtensorModule",
        "set_weights",
        netuid=netuid,
        dests=list(dests),
        weights=list(weights),
        version_key=version_key,
    )


def test_genesis_has_an_owner_and_permitted_validators(net):
    """Uid 0 is the owner's; uids 1 and 2 hold permits and 10,000 staked each."""
    hotkeys = [net.get("Keys", 1, uid) for uid in range(3)]
    uris = ("//Owner//hotkey", "//Validator1//hotkey", "//Validator2//hotkey")
    assert hotkeys == [net.address(uri) for uri in uris]
    assert net.get("ValidatorPermit", 1) == [False, True, True]
    assert net.get("TotalHotkeyAlpha", hotkeys[1], 1) == 10_000 * RAO_PER_TAO
    assert net.get("SubnetOwner", 1) == net.address("//Owner")


def test_registration_burns_and_gives_the_next_uid(net):
    """The burn leaves the coldkey, the hotkey gets uid 3 and belongs to the coldkey."""
    before = net.free("//Miner1")
    outcome = net.register("//Miner1")
    hotkey = net.address("//Miner1//hotkey")
    event = next(e for e in outcome.events if e["event_id"] == "NeuronRegistered")
    assert list(event["attributes"]) == [1, 3, hotkey]
    assert net.get("Uids", 1, hotkey) == 3
    assert net.get("Owner", hotkey) == net.address("//Miner1")
    assert net.get("BlockAtRegistration", 1, 3) == outcome.block
    assert before - BURN_RAO > net.free("//Miner1") > before - BURN_RAO - 10**7


def test_registration_refuses_in_the_order_of_the_chain(net):
    """Missing subnet, closed registration, known hotkey, foreign hotkey, too poor."""
    hotkey = net.address("//Miner1//hotkey")
    missing = net.run("//Miner1", "SubtensorModule", "burned_register", netuid=9, hotkey=hotkey)
    assert missing.error == "SubnetNotExists"
    net.register("//Miner1")
    assert net.register("//Miner1").error == "HotKeyAlreadyRegisteredInSubNet"
    assert net.register("//Miner2", "//Owner//hotkey").error == "HotKeyAlreadyRegisteredInSubNet"
    net.sudo("sudo_set_network_registration_allowed", netuid=1, registration_allowed=False)
    assert net.register("//Miner2").error == "SubNetRegistrationDisabled"


def test_a_poor_coldkey_cannot_register(net):
    """Less than the burn is NotEnoughBalanceToStake."""
    net.run(
        "//Alice",
        "Balances",
        "transfer_keep_alive",
        dest=net.address("//Poor"),
        value=BURN_RAO,
    )
    assert net.register("//Poor").error == "NotEnoughBalanceToStake"


def test_a_limit_below_the_burn_refuses(net):
    """register_limit protects from a higher price and lets an equal one through."""
    call = {"netuid": 1, "hotkey": net.address("//Miner1//hotkey")}
    limited = net.run(
        "//Miner1", "SubtensorModule", "register_limit", limit_price=BURN_RAO - 1, **call
    )
    assert limited.error == "RegistrationPriceLimitExceeded"
    paid = net.run("//Miner1", "SubtensorModule", "register_limit", limit_price=BURN_RAO, **call)
    assert paid.error is None


def test_a_full_subnet_replaces_the_least_neuron_that_is_not_immune(net):
    """The uid goes to the newcomer and nothing of the old neuron stays."""
    net.register("//Miner1")
    net.run("//Miner1//hotkey", "SubtensorModule", "serve_axon", **AXON)
    net.sudo("sudo_set_max_allowed_uids", netuid=1, max_allowed_uids=4)
    assert net.register("//Miner2").error == "NoNeuronIdAvailable"
    net.sudo("sudo_set_immunity_period", netuid=1, immunity_period=1)
    for uid in (1, 2):  # the validators earn more than the miner
        state_emission = net.get("Emission", 1)
        assert state_emission[uid] == 0
    view = net.chain.state_at(net.chain.best.number)
    assert registration.find_slot(view, 1, net.chain.best.number) == 1  # oldest, lowest uid
    net.register("//Miner2")
    assert net.get("Keys", 1, 1) == net.address("//Miner2//hotkey")
    assert net.get("Uids", 1, net.address("//Validator1//hotkey")) is None
    assert net.get("ValidatorPermit", 1)[1] is False
    assert neurons.count(net.chain.state_at(net.chain.best.number), 1) == 4


def test_serving_an_axon_is_published(net):
    """The metagraph's storage holds the address; serving again at once is too fast."""
    net.register("//Miner1")
    outcome = net.run("//Miner1//hotkey", "SubtensorModule", "serve_axon", **AXON)
    hotkey = net.address("//Miner1//hotkey")
    axon = net.get("Axons", 1, hotkey)
    assert (axon["ip"], axon["port"], axon["block"]) == (AXON["ip"], 8091, outcome.block)
    again = net.run("//Miner1//hotkey", "SubtensorModule", "serve_axon", **AXON)
    assert again.error == "ServingRateLimitExceeded"
    net.blocks(5)
    later = net.run("//Miner1//hotkey", "SubtensorModule", "serve_axon", **{**AXON, "port": 1})
    assert later.error is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"ip_type": 5}, "InvalidIpType"),
        ({"ip": 0}, "InvalidIpAddress"),
        ({"ip": (1 << 32) - 1}, "InvalidIpAddress"),
        ({"ip": 1 << 32}, "InvalidIpAddress"),
        ({"port": 0}, "InvalidPort"),
    ],
)
def test_a_bad_axon_is_refused(net, change, error):
    """Each wrong field has its own error."""
    outcome = net.run(VALIDATOR, "SubtensorModule", "serve_axon", **{**AXON, **change})
    assert outcome.error == error


def test_an_unregistered_hotkey_cannot_serve(net):
    """Serving is for registered hotkeys."""
    outcome = net.run("//Bob", "SubtensorModule", "serve_axon", **AXON)
    assert outcome.error == "HotKeyNotRegisteredInNetwork"


def test_weights_are_stored_upscaled(net):
    """The largest weight becomes 65535, the others keep their proportion."""
    net.register("//Miner1")
    net.register("//Miner2")
    outcome = set_weights(net, dests=(3, 4), weights=(1, 3))
    assert outcome.error is None
    assert net.get("Weights", 1, 1) == [(3, 21_845), (4, 65_535)]
    assert net.get("LastUpdate", 1)[1] == outcome.block


def test_weights_refuse_in_the_order_of_the_chain(net):
    """Lengths, uids count, registered, stake, version key, permit, duplicates, bounds."""
    net.register("//Miner1")
    assert set_weights(net, dests=(3, 1)).error == "WeightVecNotEqualSize"
    many = set_weights(net, dests=range(9), weights=range(9))
    assert many.error == "UidsLengthExceedUidsInSubNet"
    assert set_weights(net, "//Bob").error == "HotKeyNotRegisteredInSubNet"
    assert set_weights(net, "//Miner1//hotkey").error == "NotEnoughStakeToSetWeights"
    net.sudo("sudo_set_weights_version_key", netuid=1, weights_version_key=7)
    assert set_weights(net, version_key=6).error == "IncorrectWeightVersionKey"
    wrong = {"version_key": 7}
    assert set_weights(net, dests=(3, 3), weights=(1, 1), **wrong).error == "DuplicateUids"
    assert set_weights(net, dests=(99,), **wrong).error == "UidVecContainInvalidOne"
    assert set_weights(net, dests=(), weights=(), **wrong).error == "WeightVecLengthIsLow"
    assert set_weights(net, netuid=5, **wrong).error == "CommitRevealEnabled"  # the default
    call = {"netuid": 1, "mecid": 1, "dests": [3], "weights": [1], "version_key": 7}
    second = net.run(VALIDATOR, "SubtensorModule", "set_mechanism_weights", **call)
    assert second.error == "MechanismDoesNotExist"


def test_stake_without_a_permit_may_not_weigh_others(net):
    """A staked neuron gets its permit at the next epoch, not before."""
    net.register("//Miner1")
    hotkey = net.address("//Miner1//hotkey")
    stake = {"hotkey": hotkey, "netuid": 1, "amount_staked": 2_000 * RAO_PER_TAO}
    net.run("//Miner1", "SubtensorModule", "add_stake", **stake)
    net.blocks(4)  # registration counts as an update
    assert set_weights(net, "//Miner1//hotkey", dests=(1,)).error == "NeuronNoValidatorPermit"
    net.blocks(10)
    assert set_weights(net, "//Miner1//hotkey", dests=(1,)).error is None


def test_weights_may_not_be_set_twice_within_the_rate_limit(net):
    """The fifth block after the last update is the first that takes new weights."""
    net.register("//Miner1")
    first = set_weights(net)
    assert set_weights(net).error == "SettingWeightsTooFast"
    net.blocks(first.block + 4 - net.chain.best.number)
    assert set_weights(net).error is None


def test_commit_and_reveal(net):
    """With commit-reveal on, weights apply when the matching reveal comes in its epoch."""
    net.register("//Miner1")
    net.sudo("sudo_set_commit_reveal_weights_enabled", netuid=1, enabled=True)
    assert set_weights(net).error == "CommitRevealEnabled"
    validator = net.address(VALIDATOR)
    public = bytes(net.key(VALIDATOR).public_key)
    uids, values, salt = [3], [9], [1, 2]
    vectors = b"".join(
        bytes([len(v) << 2]) + b"".join(n.to_bytes(2, "little") for n in v)
        for v in (uids, values, salt)
    )
    blob = public + (1).to_bytes(2, "little") + vectors + (0).to_bytes(8, "little")
    commit = "0x" + hashlib.blake2b(blob, digest_size=32).hexdigest()
    reveal = {"netuid": 1, "uids": uids, "values": values, "salt": salt, "version_key": 0}
    assert net.run(VALIDATOR, "SubtensorModule", "reveal_weights", **reveal).error == (
        "NoWeightsCommitFound"
    )
    net.run(VALIDATOR, "SubtensorModule", "commit_weights", netuid=1, commit_hash=commit)
    (entry,) = net.get("WeightCommits", 1, validator)
    early = net.run(VALIDATOR, "SubtensorModule", "reveal_weights", **reveal)
    assert early.error == "RevealTooEarly"
    net.blocks(entry[2] - net.chain.best.number)
    other = {**reveal, "values": [8]}
    assert net.run(VALIDATOR, "SubtensorModule", "reveal_weights", **other).error == (
        "InvalidRevealCommitHashNotMatch"
    )
    assert net.run(VALIDATOR, "SubtensorModule", "reveal_weights", **reveal).error is None
    assert net.get("Weights", 1, 1) == [(3, 65_535)]
    assert net.get("WeightCommits", 1, validator) == []


def test_an_expired_commit_cannot_be_revealed(net):
    """After its epoch a commit is worth nothing."""
    net.sudo("sudo_set_commit_reveal_weights_enabled", netuid=1, enabled=True)
    reveal = {"netuid": 1, "uids": [1], "values": [1], "salt": [1], "version_key": 0}
    public = bytes(net.key(VALIDATOR).public_key)
    vectors = b"\x04\x01\x00" * 3
    blob = public + b"\x01\x00" + vectors + bytes(8)
    commit = "0x" + hashlib.blake2b(blob, digest_size=32).hexdigest()
    net.run(VALIDATOR, "SubtensorModule", "commit_weights", netuid=1, commit_hash=commit)
    net.blocks(25)
    late = net.run(VALIDATOR, "SubtensorModule", "reveal_weights", **reveal)
    assert late.error == "ExpiredWeightCommit"


def test_a_timelocked_commit_is_stored(net):
    """It lies under the mechanism's index and the epoch, bytes untouched."""
    net.sudo("sudo_set_commit_reveal_weights_enabled", netuid=1, enabled=True)
    call = {"netuid": 1, "commit": b"sealed bytes", "reveal_round": 77}
    old = net.run(
        VALIDATOR, "SubtensorModule", "commit_timelocked_weights", commit_reveal_version=3, **call
    )
    assert old.error == "IncorrectCommitRevealVersion"
    new = net.run(
        VALIDATOR, "SubtensorModule", "commit_timelocked_weights", commit_reveal_version=4, **call
    )
    assert new.error is None
    epoch = net.get("SubnetEpochIndex", 1)
    ((who, block, _commit, reveal_round),) = net.get("TimelockedWeightCommits", 1, epoch)
    assert (who, block, reveal_round) == (net.address(VALIDATOR), new.block, 77)


def test_stake_goes_in_and_out(net):
    """One TAO is one alpha; more than the stake does not come out."""
    hotkey = net.address(VALIDATOR)
    call = {"hotkey": hotkey, "netuid": 1}
    net.run("//Bob", "SubtensorModule", "add_stake", amount_staked=5 * RAO_PER_TAO, **call)
    assert net.get("TotalHotkeyAlpha", hotkey, 1) == 10_005 * RAO_PER_TAO
    too_much = net.run(
        "//Bob", "SubtensorModule", "remove_stake", amount_unstaked=5 * RAO_PER_TAO + 1, **call
    )
    assert too_much.error == "NotEnoughStakeToWithdraw"
    before = net.free("//Bob")
    net.run("//Bob", "SubtensorModule", "remove_stake", amount_unstaked=5 * RAO_PER_TAO, **call)
    assert before + 5 * RAO_PER_TAO > net.free("//Bob") > before + 4 * RAO_PER_TAO
    assert net.get("TotalHotkeyAlpha", hotkey, 1) == 10_000 * RAO_PER_TAO


def test_stake_with_a_price_limit(net):
    """The price is one; a buyer's lower and a seller's higher limit refuse."""
    call = {"hotkey": net.address(VALIDATOR), "netuid": 1, "allow_partial": False}
    buy = {"amount_staked": RAO_PER_TAO, **call}
    low = net.run("//Bob", "SubtensorModule", "add_stake_limit", limit_price=10**9 - 1, **buy)
    assert low.error == "SlippageTooHigh"
    fair = net.run("//Bob", "SubtensorModule", "add_stake_limit", limit_price=10**9, **buy)
    assert fair.error is None
    sell = {"amount_unstaked": RAO_PER_TAO, **call}
    high = net.run("//Bob", "SubtensorModule", "remove_stake_limit", limit_price=10**9 + 1, **sell)
    assert high.error == "SlippageTooHigh"
    sold = net.run("//Bob", "SubtensorModule", "remove_stake_limit", limit_price=10**9, **sell)
    assert sold.error is None


def test_a_new_subnet_costs_its_lock_and_starts_when_called(net):
    """register_network gives netuid 2; only its owner starts it, once."""
    hotkey = net.address("//Dave//hotkey")
    made = net.run("//Dave", "SubtensorModule", "register_network", hotkey=hotkey)
    assert made.error is None
    assert net.get("SubnetOwner", 2) == net.address("//Dave")
    stranger = net.run("//Bob", "SubtensorModule", "start_call", netuid=2)
    assert stranger.error == "NotSubnetOwner"
    assert net.run("//Dave", "SubtensorModule", "start_call", netuid=2).error is None
    twice = net.run("//Dave", "SubtensorModule", "start_call", netuid=2)
    assert twice.error == "FirstEmissionBlockNumberAlreadySet"


def test_only_root_changes_parameters(net):
    """Sudo by another key fails; the admin call by a user is BadOrigin."""
    inner = net.codec.compose_call("AdminUtils", "sudo_set_tempo", {"netuid": 1, "tempo": 3})
    assert net.run("//Bob", "Sudo", "sudo", call=inner).error == "RequireSudo"
    assert net.run("//Bob", "AdminUtils", "sudo_set_tempo", netuid=1, tempo=3).error == "BadOrigin"
    net.sudo("sudo_set_tempo", netuid=1, tempo=3)
    assert net.get("Tempo", 1) == 3


def test_the_owner_changes_some_parameters(net):
    """The subnet's owner sets the version key, not the rate limit; a stranger neither."""
    call = {"netuid": 1, "weights_version_key": 3}
    assert net.run("//Owner", "AdminUtils", "sudo_set_weights_version_key", **call).error is None
    assert net.get("WeightsVersionKey", 1) == 3
    stranger = net.run("//Bob", "AdminUtils", "sudo_set_weights_version_key", **call)
    assert stranger.error == "BadOrigin"
    limit = {"netuid": 1, "weights_set_rate_limit": 0}
    root_only = net.run("//Owner", "AdminUtils", "sudo_set_weights_set_rate_limit", **limit)
    assert root_only.error == "BadOrigin"


def test_a_higher_minimum_lifts_the_burn(net):
    """Registration costs what the bounds allow from then on."""
    net.sudo("sudo_set_max_burn", netuid=1, max_burn=5 * RAO_PER_TAO)
    net.sudo("sudo_set_min_burn", netuid=1, min_burn=2 * RAO_PER_TAO)
    before = net.free("//Miner1")
    net.register("//Miner1")
    assert before - net.free("//Miner1") > 2 * RAO_PER_TAO


def test_more_validators_can_be_asked_for(make_net):
    """Each has its uid, its stake and its permit."""
    net = make_net(validators=4)
    assert net.get("ValidatorPermit", 1) == [False, True, True, True, True]
    assert net.get("Keys", 1, 4) == net.address("//Validator4//hotkey")
    assert net.free("//Validator4") > 0
