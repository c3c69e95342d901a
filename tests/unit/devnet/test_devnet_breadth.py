"""Calls beyond the daily ones: stake moves, batches, identities, takes, mechanisms, the burn."""

import pytest

from chutes_core.base.units import RAO_PER_TAO
from chutes_core.devnet.pallets import admin_utils
from chutes_core.devnet.pallets.subtensor import staking

HALF = 5_000 * RAO_PER_TAO
S = "SubtensorModule"


def hotkey(net, name):
    return net.address(f"//{name}//hotkey")


def stake(net, name, coldkey=None):
    shares = net.chain.state_at(net.chain.best.number)
    owner = net.address(f"//{coldkey or name}")
    return staking.coldkey_alpha(shares, hotkey(net, name), owner, 1)


def event_names(outcome):
    return [event["event_id"] for event in outcome.events]


def test_stake_moves_between_hotkeys(net):
    """What leaves one validator arrives at the other; the owner stays."""
    keys = {
        "origin_hotkey": hotkey(net, "Validator1"),
        "destination_hotkey": hotkey(net, "Validator2"),
    }
    netuids = {"origin_netuid": 1, "destination_netuid": 1}
    outcome = net.run("//Validator1", S, "move_stake", **keys, **netuids, alpha_amount=HALF)
    assert outcome.error is None
    assert "StakeMoved" in event_names(outcome)
    assert stake(net, "Validator1") == HALF
    assert stake(net, "Validator2", "Validator1") == HALF


def test_stake_changes_its_owner(net):
    """transfer_stake needs the toggle, the amount, and the right netuids."""
    call = {
        "destination_coldkey": net.address("//Bob"),
        "hotkey": hotkey(net, "Validator1"),
        "origin_netuid": 1,
        "destination_netuid": 1,
        "alpha_amount": HALF,
    }
    net.sudo("sudo_set_toggle_transfer", netuid=1, toggle=False)
    assert net.run("//Validator1", S, "transfer_stake", **call).error == "TransferDisallowed"
    net.sudo("sudo_set_toggle_transfer", netuid=1, toggle=True)
    assert net.run("//Validator1", S, "transfer_stake", **call).error is None
    assert stake(net, "Validator1", "Bob") == HALF
    again = net.run("//Validator1", S, "transfer_stake", **{**call, "alpha_amount": 2 * HALF})
    assert again.error == "NotEnoughStakeToWithdraw"


def test_all_stake_comes_back_at_once(net):
    """unstake_all empties the position into the coldkey."""
    before = net.free("//Validator1")
    outcome = net.run("//Validator1", S, "unstake_all", hotkey=hotkey(net, "Validator1"))
    assert outcome.error is None
    assert stake(net, "Validator1") == 0
    assert net.free("//Validator1") > before + 2 * HALF - RAO_PER_TAO // 100


def test_stake_moves_to_root_and_between_subnets(net):
    """unstake_all_alpha collects on root; swap_stake takes it back to the subnet."""
    key = hotkey(net, "Validator1")
    assert net.run("//Validator1", S, "unstake_all_alpha", hotkey=key).error is None
    assert net.get("TotalHotkeyAlpha", key, 0) == 2 * HALF
    back = {"origin_netuid": 0, "destination_netuid": 1, "alpha_amount": HALF}
    assert net.run("//Validator1", S, "swap_stake", hotkey=key, **back).error is None
    assert stake(net, "Validator1") == HALF
    same = {**back, "destination_netuid": 0}
    assert net.run("//Validator1", S, "swap_stake", hotkey=key, **same).error == "SameNetuid"


def test_a_certificate_is_kept_beside_the_axon(net):
    """serve_axon_tls stores algorithm and key; the axon is served as ever."""
    fields = {"version": 1, "ip": 0x7F000001, "port": 9, "ip_type": 4, "protocol": 4}
    fields |= {"placeholder1": 0, "placeholder2": 0, "certificate": b"\x01" + b"k" * 32}
    outcome = net.run("//Validator1//hotkey", S, "serve_axon_tls", netuid=1, **fields)
    assert outcome.error is None
    kept = net.get("NeuronCertificates", 1, hotkey(net, "Validator1"))
    assert kept == {"public_key": "k" * 32, "algorithm": 1}  # bytes that are text decode as text
    assert net.get("Axons", 1, hotkey(net, "Validator1"))["port"] == 9


def test_a_batch_of_weights_tells_which_failed(net):
    """One subnet is set, one that does not exist is told by an event; the extrinsic succeeds."""
    net.register("//Miner1")
    rows = [[(3, 1)], [(0, 1)]]
    outcome = net.run(
        "//Validator1//hotkey",
        S,
        "batch_set_weights",
        netuids=[1, 9],
        weights=rows,
        version_keys=[0, 0],
    )
    assert outcome.error is None
    assert {"WeightsSet", "BatchWeightItemFailed", "BatchCompletedWithErrors"} <= set(
        event_names(outcome)
    )
    assert net.get("Weights", 1, 1) == [(3, 65_535)]


def test_mechanisms_have_weights_of_their_own(net):
    """After a second mechanism is added its weights do not touch the first one's."""
    net.register("//Miner1")
    assert net.sudo("sudo_set_mechanism_count", netuid=1, mechanism_count=2).error is None
    call = {"netuid": 1, "dests": [3], "weights": [1], "version_key": 0}
    outcome = net.run("//Validator1//hotkey", S, "set_mechanism_weights", mecid=1, **call)
    assert outcome.error is None
    assert net.get("Weights", 4_097, 1) == [(3, 65_535)]
    assert net.get("Weights", 1, 1) == []
    net.register("//Miner2")
    assert len(net.get("LastUpdate", 4_097)) == len(net.get("LastUpdate", 1)) == 5


def test_identities_are_told_by_their_owners_only(net):
    """A coldkey with a registered hotkey, the owner of a subnet, and nobody else."""
    about = dict.fromkeys(("url", "github_repo", "image", "discord", "additional"), b"")
    about |= {"name": b"Validator One", "description": b"kind"}
    assert net.run("//Validator1", S, "set_identity", **about).error is None
    assert net.get("IdentitiesV2", net.address("//Validator1"))["name"] == "Validator One"
    assert net.run("//Bob", S, "set_identity", **about).error == "HotKeyNotRegisteredInNetwork"
    subnet = dict.fromkeys(
        ("github_repo", "subnet_contact", "subnet_url", "discord", "logo_url", "additional"), b""
    )
    subnet |= {"netuid": 1, "subnet_name": b"other", "description": b""}
    assert net.run("//Bob", S, "set_subnet_identity", **subnet).error == "NotSubnetOwner"
    assert net.run("//Owner", S, "set_subnet_identity", **subnet).error is None
    assert net.get("SubnetIdentitiesV3", 1)["subnet_name"] == "other"


def test_a_take_moves_within_its_bounds(net):
    """Lower is decrease_take's business, higher increase_take's."""
    key = hotkey(net, "Validator1")
    lower, higher = net.get("Delegates", key) - 1_000, net.get("MaxDelegateTake") + 1
    run = lambda name, take: net.run("//Validator1", S, name, hotkey=key, take=take).error  # noqa: E731
    assert run("increase_take", lower) == "DelegateTakeTooLow"
    assert run("decrease_take", lower) is None
    assert run("increase_take", higher) == "DelegateTakeTooHigh"
    assert net.get("Delegates", key) == lower


def test_a_hotkey_is_claimed_once(net):
    """The first coldkey keeps it."""
    key = net.address("//Nobody//hotkey")
    for coldkey in ("//Alice", "//Bob"):
        assert net.run(coldkey, S, "try_associate_hotkey", hotkey=key).error is None
    assert net.get("Owner", key) == net.address("//Alice")


def test_the_burn_floats_between_its_bounds(net):
    """A registration raises it, time lowers it, the bounds hold."""
    floor = net.get("MinBurn", 1)
    net.sudo("sudo_set_max_burn", netuid=1, max_burn=10 * floor)
    net.sudo("sudo_set_burn_half_life", netuid=1, burn_half_life=4)
    net.register("//Miner1")
    raised = net.get("Burn", 1)
    assert raised == pytest.approx(floor * 1.26, rel=1e-6)
    for number in range(2, 9):
        net.register(f"//Miner{number}" if number < 4 else "//Alice", f"//Extra{number}//hotkey")
    assert floor < net.get("Burn", 1) <= 10 * floor
    net.blocks(60)
    assert net.get("Burn", 1) == floor


def test_a_young_subnet_waits_with_its_start(net):
    """start_call is refused until StartCallDelay has passed."""
    net.sudo("sudo_set_start_call_delay", delay=5)
    net.run("//Alice", S, "register_network", hotkey=net.address("//Alice//hotkey"))
    early = net.run("//Alice", S, "start_call", netuid=2)
    assert early.error == "NeedWaitingMoreBlocksToStarCall"
    net.blocks(5)
    assert net.run("//Alice", S, "start_call", netuid=2).error is None


def test_root_may_force_balances(net):
    """force_set_balance through sudo; nobody else."""
    call = {"who": net.address("//Poor"), "new_free": 12_345}
    inner = net.codec.compose_call("Balances", "force_set_balance", call)
    net.run("//Alice", "Sudo", "sudo", call=inner)
    assert net.free(net.address("//Poor")) == 12_345
    assert net.run("//Bob", "Balances", "force_set_balance", **call).error == "BadOrigin"


def test_every_setter_is_a_call_of_the_runtime_and_has_its_item(net):
    """The tables name nothing that the metadata does not have."""
    pallets = net.codec.runtime.metadata_ir()["pallets"]
    known = {c["name"] for p in pallets if p["name"] == "AdminUtils" for c in p["calls"]}
    assert set(admin_utils.CALLS) <= known
    for item in admin_utils._SUBNET_SETTERS.values():
        assert len(net.codec.entry(S, item).param_types) == 1
    for item in admin_utils._GLOBAL_SETTERS.values():
        assert net.codec.entry(S, item).param_types == []


def test_plain_commits_of_a_mechanism_and_in_batches(net):
    """commit_mechanism_weights and batch_commit_weights store what reveal then finds."""
    net.register("//Miner1")
    net.sudo("sudo_set_commit_reveal_weights_enabled", netuid=1, enabled=True)
    net.sudo("sudo_set_mechanism_count", netuid=1, mechanism_count=2)
    commit = "0x" + "ab" * 32
    first = net.run(
        "//Validator1//hotkey",
        S,
        "commit_mechanism_weights",
        netuid=1,
        mecid=1,
        commit_hash=commit,
    )
    assert first.error is None
    assert len(net.get("WeightCommits", 4_097, hotkey(net, "Validator1"))) == 1
    second = net.run(
        "//Validator2//hotkey",
        S,
        "batch_commit_weights",
        netuids=[1, 7],
        commit_hashes=[commit] * 2,
    )
    assert second.error is None
    assert "BatchWeightItemFailed" in event_names(second)
    assert len(net.get("WeightCommits", 1, hotkey(net, "Validator2"))) == 1
