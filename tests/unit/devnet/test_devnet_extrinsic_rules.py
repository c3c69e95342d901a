"""Signatures, nonces, eras and fees: what the pool refuses and what a block charges."""

import pytest
from bittensor_core import CRYPTO_ED25519, Keypair

from chutes_core.devnet.extrinsics import TransactionRefused

BOB = "//Bob"


def transfer(net, value=1_000, dest=BOB, function="transfer_keep_alive"):
    return ("Balances", function, {"dest": net.address(dest), "value": value})


def test_a_signature_of_another_key_is_refused(net):
    """Only the sender's own key signs for it."""
    raw = net.sign("//Alice", transfer(net), signer="//Eve")
    assert net.refused(raw) == "Transaction has a bad signature"


def test_a_flipped_bit_of_the_call_is_refused(net):
    """The signature covers the call."""
    raw = bytearray(net.sign("//Alice", transfer(net)))
    raw[-1] ^= 1
    assert net.refused(bytes(raw)) == "Transaction has a bad signature"


def test_a_signature_for_another_genesis_is_refused(net):
    """An extrinsic of one chain is worth nothing on another."""
    raw = net.sign("//Alice", transfer(net), genesis_hash=b"\x11" * 32)
    assert net.refused(raw) == "Transaction has a bad signature"


def test_an_ed25519_key_signs_too(net):
    """Both signature kinds of the runtime's accounts are verified, by their own scheme."""
    key = Keypair.create_from_seed(b"\x07" * 32, crypto_type=CRYPTO_ED25519)
    net.run("//Alice", "Balances", "transfer_keep_alive", dest=key.ss58_address, value=10**9)
    runtime, genesis = net.codec.runtime, net.chain.genesis_hash
    data = net.codec.compose_call(*transfer(net))
    fields = {"era": "00", "nonce": 0, "tip": 0, "tip_asset_id": None}
    payload = runtime.signature_payload(
        data, **fields, genesis_hash=genesis, era_block_hash=genesis
    )
    kinds = {"public_key": key.public_key, "signature_version": CRYPTO_ED25519, **fields}
    wrong, _ = runtime.encode_signed_extrinsic(data, signature=key.sign(b"other"), **kinds)
    assert net.refused(bytes(wrong)) == "Transaction has a bad signature"
    right, _ = runtime.encode_signed_extrinsic(data, signature=key.sign(bytes(payload)), **kinds)
    net.submit(bytes(right))
    net.blocks(1)
    assert net.outcome(bytes(right)).error is None


def test_a_used_nonce_is_refused(net):
    """An included extrinsic cannot be replayed."""
    raw = net.sign("//Alice", transfer(net))
    net.submit(raw)
    net.blocks(1)
    assert net.refused(raw) == "Transaction is outdated"


def test_a_future_nonce_waits_for_the_gap_to_close(net):
    """Nonce 1 is included only after nonce 0, in the same block if both are there."""
    later = net.sign("//Alice", transfer(net, 2), nonce=1)
    waiting = net.submit(later)
    net.blocks(1)
    assert net.statuses[waiting] == ["future"]
    assert later not in net.chain.best.extrinsics
    first = net.sign("//Alice", transfer(net, 1), nonce=0)
    net.submit(first)
    net.blocks(1)
    assert list(net.chain.best.extrinsics[1:]) == [first, later]


def test_the_next_index_counts_what_waits_in_the_pool(net):
    """A client that asks for its nonce twice gets the one after its pending extrinsic."""
    alice = net.address("//Alice")
    net.submit(net.sign("//Alice", transfer(net)))
    assert net.chain.next_index(alice) == 1


def test_the_same_nonce_is_replaced_only_by_a_higher_tip(net):
    """A rival without a higher tip is refused; with one it usurps the other's place."""
    first = net.submit(net.sign("//Alice", transfer(net, 1), nonce=0))
    with pytest.raises(TransactionRefused) as caught:
        net.chain.submit(net.sign("//Alice", transfer(net, 2), nonce=0))
    assert caught.value.code == 1014
    second = net.submit(net.sign("//Alice", transfer(net, 2), nonce=0, tip=5))
    assert net.statuses[first][-1] == {"usurped": "0x" + second.hex()}


def test_a_known_extrinsic_is_refused_again(net):
    """Submitting twice is told apart from success."""
    raw = net.sign("//Alice", transfer(net))
    net.submit(raw)
    with pytest.raises(TransactionRefused) as caught:
        net.chain.submit(raw)
    assert caught.value.code == 1013


def test_a_mortal_extrinsic_is_valid_inside_its_era_only(net):
    """With a period of 4 a signature holds for the blocks of its window and no longer."""
    birth = net.chain.best.number // 4 * 4
    era = {"period": 4, "current": birth}
    raw = net.sign("//Alice", transfer(net), era=era, era_block=birth)
    net.blocks(birth + 3 - net.chain.best.number)
    assert net.refused(raw) == "Transaction has an ancient birth block"
    net.blocks(1)
    assert net.refused(raw) == "Transaction has a bad signature"


def test_an_era_anchored_to_another_block_is_refused(net):
    """The hash at the era's birth is part of what is signed."""
    net.blocks(8)
    raw = net.sign("//Alice", transfer(net), era={"period": 4, "current": 8}, era_block=7)
    assert net.refused(raw) == "Transaction has a bad signature"


def test_an_extrinsic_that_expires_in_the_pool_is_invalid(net):
    """A future nonce whose era passes is dropped and its watcher told."""
    birth = net.chain.best.number // 4 * 4
    era = {"period": 4, "current": birth}
    waiting = net.submit(net.sign("//Alice", transfer(net), nonce=3, era=era, era_block=birth))
    net.blocks(6)
    assert net.statuses[waiting] == ["future", "invalid"]
    assert len(net.chain.pool) == 0


def test_who_cannot_pay_the_fee_is_refused(net):
    """An empty account reaches no block."""
    raw = net.sign("//Stranger", transfer(net, 1))
    assert net.refused(raw).startswith("Inability to pay some fees")


def test_the_fee_is_charged_and_told(net):
    """The sender pays value and fee; the event names the fee; issuance shrinks by it."""
    before, issued = net.free("//Alice"), net.chain.state_at(1).get("Balances", "TotalIssuance")
    outcome = net.run("//Alice", *transfer(net)[:2], dest=net.address(BOB), value=1_000)
    paid = next(e for e in outcome.events if e["event_id"] == "TransactionFeePaid")
    fee = paid["attributes"]["actual_fee"]
    assert fee == 332_208_000 // 2_000 + 142
    assert net.free("//Alice") == before - 1_000 - fee
    view = net.chain.state_at(net.chain.best.number)
    assert view.get("Balances", "TotalIssuance") == issued - fee


def test_a_failed_call_still_costs_its_fee_and_nonce(net):
    """ExtrinsicFailed carries the reason; nothing but the fee has moved."""
    before, bobs = net.free("//Alice"), net.free(BOB)
    raw = net.sign("//Alice", transfer(net, before * 2))
    net.submit(raw)
    net.blocks(1)
    assert net.outcome(raw).error == "FundsUnavailable"
    assert before > net.free("//Alice") > before - 10**6
    assert net.free(BOB) == bobs
    assert net.chain.next_index(net.address("//Alice")) == 1


def test_an_unknown_call_is_refused_before_it_costs_anything(net):
    """The reason names the call that devnet does not have."""
    raw = net.sign("//Alice", ("Balances", "upgrade_accounts", {"who": []}))
    assert "devnet has no Balances.upgrade_accounts" in net.refused(raw)


@pytest.mark.parametrize("cut", [1, 2, 40, 100, 130])
def test_a_truncated_extrinsic_is_malformed(net, cut):
    """Bytes that are no extrinsic are refused with code 1001, never an exception."""
    raw = net.sign("//Alice", transfer(net))
    with pytest.raises(TransactionRefused) as caught:
        net.chain.submit(raw[:cut])
    assert caught.value.code == 1001


def test_an_unsigned_extrinsic_is_refused(net):
    """Only the author makes inherents."""
    call = net.codec.compose_call("Timestamp", "set", {"now": 1})
    raw = bytes([(len(call) + 1) << 2, 0x04]) + call
    with pytest.raises(TransactionRefused) as caught:
        net.chain.submit(raw)
    assert caught.value.code == 1011


def test_a_signed_inherent_fails(net):
    """A user cannot set the time or announce a shield key."""
    assert net.run("//Alice", "Timestamp", "set", now=1).error == "BadOrigin"
    assert net.run("//Alice", "MevShield", "announce_next_key", enc_key=None).error == "BadOrigin"


def test_a_call_nested_too_deep_is_malformed(net):
    """A bomb of nested calls is refused while decoding."""
    data = net.codec.compose_call("System", "remark", {"remark": "0x00"})
    good = net.sign("//Alice", ("System", "remark", {"remark": "0x00"}))
    head = good[2 : -len(data)]
    for depth in (100, 5_000):
        body = head + bytes.fromhex("0c00") * depth + data
        raw = (len(body) << 2 | 2).to_bytes(4, "little") + body
        with pytest.raises(TransactionRefused) as caught:
            net.chain.submit(raw)
        assert caught.value.code == 1001


def test_a_hotkeys_fee_is_paid_by_its_coldkey(net):
    """A hotkey without balance can set a commitment; the owning coldkey is charged."""
    net.register("//Miner1")
    before = net.free("//Miner1")
    info = {"fields": [[{"Raw5": "0x" + b"hello".hex()}]]}
    outcome = net.run("//Miner1//hotkey", "Commitments", "set_commitment", netuid=1, info=info)
    assert outcome.error is None
    assert net.free("//Miner1//hotkey") == 0
    assert net.free("//Miner1") < before


def test_a_hotkey_with_an_empty_coldkey_is_refused(net):
    """When the owning coldkey cannot pay, the hotkey's extrinsic is refused."""
    net.register("//Miner1")
    net.run("//Miner1", "Balances", "transfer_all", dest=net.address(BOB), keep_alive=False)
    axon = {"version": 1, "ip": 1 << 24, "port": 1, "ip_type": 4, "protocol": 0}
    call = {**axon, "netuid": 1, "placeholder1": 0, "placeholder2": 0}
    raw = net.sign("//Miner1//hotkey", ("SubtensorModule", "serve_axon", call))
    assert net.refused(raw).startswith("Inability to pay some fees")


def test_finality_lags_two_blocks_behind(net):
    """A watcher hears inBlock first, and finalized only two blocks later."""
    watched = net.submit(net.sign("//Alice", transfer(net)))
    net.blocks(1)
    included = "0x" + net.chain.best.hash.hex()
    assert net.statuses[watched] == ["ready", {"inBlock": included}]
    net.blocks(1)
    assert net.statuses[watched][-1] == {"inBlock": included}
    net.blocks(1)
    assert net.statuses[watched][-1] == {"finalized": included}
    assert net.chain.finalized.number == net.chain.best.number - 2
