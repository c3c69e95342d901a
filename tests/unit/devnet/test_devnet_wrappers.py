"""Balances, batches, proxies, commitments and the shield."""

import pytest
from bittensor_core import encrypt_mlkem768

from chutes_core.devnet.genesis import dev_address
from chutes_core.devnet.shield import ShieldKeys


def pay(net, dest, value):
    args = {"dest": net.address(dest), "value": value}
    return net.codec.compose_call("Balances", "transfer_keep_alive", args)


def names(outcome):
    return [f"{e['module_id']}.{e['event_id']}" for e in outcome.events]


def test_a_transfer_to_a_new_account_endows_it(net):
    """The new account is announced before the transfer."""
    outcome = net.run(
        "//Alice", "Balances", "transfer_keep_alive", dest=net.address("//New"), value=500
    )
    told = names(outcome)
    assert told.index("System.NewAccount") < told.index("Balances.Transfer")
    assert net.free("//New") == 500


@pytest.mark.parametrize(
    ("function", "change", "error"),
    [
        ("transfer_keep_alive", {"value": 499}, "BelowMinimum"),
        ("transfer_keep_alive", {"value": 10**18}, "FundsUnavailable"),
        ("transfer_allow_death", {"value": 10**18}, "FundsUnavailable"),
    ],
)
def test_a_transfer_that_cannot_be_fails(net, function, change, error):
    """Too small for a new account, or more than there is."""
    outcome = net.run("//Alice", "Balances", function, dest=net.address("//New"), **change)
    assert outcome.error == error


def test_keep_alive_protects_the_sender(net):
    """What would leave less than the existential deposit fails."""
    value = net.free("//Bob") - 200_000
    net.run("//Bob", "Balances", "transfer_keep_alive", dest=net.address("//Eve"), value=value)
    # after this transfer's own fee too little is left for anything more than dust
    assert net.free("//Bob") < 200_000
    raw = net.sign("//Bob", ("System", "remark", {"remark": "0x00"}))
    net.submit(raw)
    net.blocks(1)
    left = net.free("//Bob")
    assert left >= 500


def test_transfer_all_empties_the_account(net):
    """Without keep_alive the account is gone; with it the existential deposit stays."""
    eve = net.address("//Eve")
    net.run("//Bob", "Balances", "transfer_all", dest=eve, keep_alive=True)
    assert net.free("//Bob") == 500
    net.run("//Charlie", "Balances", "transfer_all", dest=eve, keep_alive=False)
    assert net.free("//Charlie") == 0
    assert not net.chain.state_at(net.chain.best.number).has(
        "System", "Account", net.address("//Charlie")
    )


def test_batch_stops_at_the_first_failure_and_keeps_what_came_before(net):
    """The extrinsic succeeds; BatchInterrupted tells index and reason."""
    calls = [pay(net, "//Dave", 1_000), pay(net, "//Dave", 10**18), pay(net, "//Dave", 1_000)]
    before = net.free("//Dave")
    outcome = net.run("//Alice", "Utility", "batch", calls=calls)
    assert outcome.error is None
    event = next(e for e in outcome.events if e["event_id"] == "BatchInterrupted")
    assert event["attributes"]["index"] == 1
    assert net.free("//Dave") == before + 1_000


def test_batch_all_keeps_nothing_when_one_fails(net):
    """All or nothing."""
    calls = [pay(net, "//Dave", 1_000), pay(net, "//Dave", 10**18)]
    before = net.free("//Dave")
    outcome = net.run("//Alice", "Utility", "batch_all", calls=calls)
    assert outcome.error == "FundsUnavailable"
    assert net.free("//Dave") == before
    assert "Balances.Transfer" not in names(outcome)


def test_force_batch_goes_on(net):
    """Each item has its event; the others take effect."""
    calls = [pay(net, "//Dave", 10**18), pay(net, "//Dave", 1_000)]
    before = net.free("//Dave")
    outcome = net.run("//Alice", "Utility", "force_batch", calls=calls)
    told = names(outcome)
    assert told.count("Utility.ItemFailed") == told.count("Utility.ItemCompleted") == 1
    assert net.free("//Dave") == before + 1_000


def test_a_proxy_acts_for_the_real_account(net):
    """Only a registered delegate, only for what its type covers."""
    alice, bob = net.address("//Alice"), net.address("//Bob")
    call = {"real": alice, "force_proxy_type": None, "call": pay(net, "//Dave", 7_000)}
    assert net.run("//Bob", "Proxy", "proxy", **call).error == "NotProxy"
    entry = {"delegate": bob, "proxy_type": "Transfer", "delay": 0}
    assert net.run("//Alice", "Proxy", "add_proxy", **entry).error is None
    before = net.free("//Alice")
    assert net.run("//Bob", "Proxy", "proxy", **call).error is None
    assert net.free("//Alice") == before - 7_000
    remark = net.codec.compose_call("System", "remark", {"remark": "0x00"})
    outcome = net.run("//Bob", "Proxy", "proxy", **{**call, "call": remark})
    event = next(e for e in outcome.events if e["event_id"] == "ProxyExecuted")
    assert "Err" in event["attributes"]["result"]
    net.run("//Alice", "Proxy", "remove_proxy", **entry)
    assert net.run("//Bob", "Proxy", "proxy", **call).error == "NotProxy"


def test_a_commitment_is_stored_byte_for_byte(net):
    """What was signed is what is read; the block tells when."""
    info = {"fields": [[{"Raw5": "0x" + b"hello".hex()}]]}
    hotkey = "//Validator1//hotkey"
    outcome = net.run(hotkey, "Commitments", "set_commitment", netuid=1, info=info)
    view = net.chain.state_at(net.chain.best.number)
    record = view.get("Commitments", "CommitmentOf", 1, net.address(hotkey))
    assert record["block"] == outcome.block
    assert record["info"] == {"fields": [{"Raw5": "0x" + b"hello".hex()}]}
    refused = net.run("//Bob", "Commitments", "set_commitment", netuid=1, info=info)
    assert refused.error == "AccountNotAllowedCommit"


def test_commitments_have_a_budget_per_epoch(net):
    """31 small commitments fit into an epoch, one more does not."""
    info = {"fields": [[{"Raw5": "0x" + b"hello".hex()}]]}
    hotkey = "//Validator1//hotkey"
    raws = [
        net.sign(hotkey, ("Commitments", "set_commitment", {"netuid": 1, "info": info}), nonce=n)
        for n in range(32)
    ]
    for raw in raws:
        net.submit(raw)
    net.blocks(1)
    assert net.outcome(raws[30]).error is None
    assert net.outcome(raws[31]).error == "SpaceLimitExceeded"


def test_a_shielded_extrinsic_follows_its_carrier(net):
    """The inner extrinsic, signed with the next nonce, stands right behind the carrier."""
    view = net.chain.state_at(net.chain.best.number)
    key = bytes.fromhex(view.get("MevShield", "NextKey")[2:])
    call = ("Balances", "transfer_keep_alive", {"dest": dev_address("//Dave"), "value": 4_000})
    inner = net.sign("//Alice", call, nonce=1)
    blob = encrypt_mlkem768(key, inner, include_key_hash=True)
    carrier = net.sign("//Alice", ("MevShield", "submit_encrypted", {"ciphertext": blob}), nonce=0)
    before = net.free("//Dave")
    net.submit(carrier)
    net.blocks(1)
    assert list(net.chain.best.extrinsics[1:]) == [carrier, inner]
    assert net.outcome(inner).error is None
    assert net.free("//Dave") == before + 4_000


def test_a_shielded_extrinsic_that_is_invalid_leaves_only_its_carrier(net):
    """A wrong inner nonce costs the carrier's fee and nothing more."""
    view = net.chain.state_at(net.chain.best.number)
    key = bytes.fromhex(view.get("MevShield", "NextKey")[2:])
    inner = net.sign("//Alice", ("System", "remark", {"remark": "0x00"}), nonce=9)
    for blob in (encrypt_mlkem768(key, inner, include_key_hash=True), b"junk"):
        args = {"ciphertext": blob}
        carrier = net.sign("//Alice", ("MevShield", "submit_encrypted", args))
        net.submit(carrier)
        net.blocks(1)
        assert list(net.chain.best.extrinsics[1:]) == [carrier]
        assert net.outcome(carrier).error is None


def test_the_shield_opens_with_its_last_two_keys_only():
    """A key that was rotated out twice opens nothing; a flipped bit neither."""
    keys = ShieldKeys()
    first = keys.rotate()
    blob = bytes(encrypt_mlkem768(first, b"secret", include_key_hash=True))
    assert keys.open(blob) == b"secret"
    assert keys.open(blob[:-1] + bytes([blob[-1] ^ 1])) is None
    assert keys.open(blob[:20]) is None
    keys.rotate()
    assert keys.open(blob) == b"secret"
    keys.rotate()
    assert keys.open(blob) is None
