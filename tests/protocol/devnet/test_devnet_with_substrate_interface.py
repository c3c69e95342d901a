"""The unmodified substrate-interface on a devnet, over a real socket."""

import pytest
from substrateinterface import Keypair, SubstrateInterface
from substrateinterface.exceptions import SubstrateRequestException

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def substrate(devnet):
    types = {"types": {"Balance": "u64"}}
    with SubstrateInterface(url=devnet.url, ss58_format=42, type_registry=types) as substrate:
        yield substrate


@pytest.fixture(scope="module")
def charlie():
    return Keypair.create_from_uri("//Charlie")


def remark(substrate):
    return substrate.compose_call("System", "remark", {"remark": "0x01"})


def test_a_transfer_is_watched_to_finality(substrate, charlie):
    """The receipt reads the events of its block; Bob's balance grew by the amount."""
    bob = Keypair.create_from_uri("//Bob").ss58_address
    free = lambda: substrate.query("System", "Account", [bob]).value["data"]["free"]  # noqa: E731
    before = free()
    call = substrate.compose_call(
        "Balances", "transfer_keep_alive", {"dest": bob, "value": 777_000}
    )
    quoted = substrate.get_payment_info(call, charlie)["partialFee"]
    extrinsic = substrate.create_signed_extrinsic(call, charlie, era={"period": 64})
    receipt = substrate.submit_extrinsic(extrinsic, wait_for_finalization=True)
    assert receipt.is_success
    assert abs(receipt.total_fee_amount - quoted) <= 1  # a mortal era is one byte longer
    assert free() == before + 777_000
    events = substrate.get_events(receipt.block_hash)
    amounts = [
        event.value["attributes"]["amount"]
        for event in events
        if event.value["event_id"] == "Transfer"
    ]
    assert 777_000 in amounts


def test_a_used_nonce_is_refused(substrate, charlie):
    """Error 1010 with the words of a node."""
    substrate.submit_extrinsic(
        substrate.create_signed_extrinsic(remark(substrate), charlie), wait_for_inclusion=True
    )
    stale = substrate.create_signed_extrinsic(remark(substrate), charlie, nonce=0)
    with pytest.raises(SubstrateRequestException, match="Transaction is outdated"):
        substrate.submit_extrinsic(stale)


def test_an_expired_era_is_refused(substrate, charlie):
    """A signature anchored to an era long past no longer verifies."""
    reached = substrate.get_block_number(None)

    def seen(header, _update, _subscription):
        return True if header["header"]["number"] >= reached + 6 else None

    substrate.subscribe_block_headers(seen)
    old = substrate.create_signed_extrinsic(
        remark(substrate), charlie, era={"period": 4, "current": reached}
    )
    with pytest.raises(SubstrateRequestException, match=r"bad signature|ancient birth"):
        substrate.submit_extrinsic(old)


def test_a_signature_of_another_key_is_refused(substrate, charlie):
    """The signer's key must be the sender's."""
    eve = Keypair.create_from_uri("//Eve")
    payload = substrate.generate_signature_payload(remark(substrate), nonce=0)
    forged = substrate.create_signed_extrinsic(
        remark(substrate), charlie, signature=eve.sign(payload)
    )
    with pytest.raises(SubstrateRequestException, match="bad signature"):
        substrate.submit_extrinsic(forged)


def test_who_cannot_pay_is_refused(substrate):
    """An empty account cannot pay the fee."""
    poor = Keypair.create_from_uri("//Nobody")
    with pytest.raises(SubstrateRequestException, match="Inability to pay"):
        substrate.submit_extrinsic(substrate.create_signed_extrinsic(remark(substrate), poor))


def test_an_unknown_method_is_an_error(substrate):
    """It is answered at once and names the method."""
    with pytest.raises(SubstrateRequestException, match="devnet has no author_rotateKeys"):
        substrate.rpc_request("author_rotateKeys", [])


def test_maps_are_paged(substrate):
    """All keys come, in pages of any size."""
    by_one = list(substrate.query_map("SubtensorModule", "Keys", [1], page_size=1))
    at_once = list(substrate.query_map("SubtensorModule", "Keys", [1]))
    assert len(by_one) >= 3
    assert [key.value for key, _ in by_one] == [key.value for key, _ in at_once]


def test_a_batch_is_one_extrinsic(substrate, charlie):
    """utility.batch_all dispatches its calls with the signer's origin."""
    calls = [remark(substrate), remark(substrate)]
    batch = substrate.compose_call("Utility", "batch_all", {"calls": calls})
    receipt = substrate.submit_extrinsic(
        substrate.create_signed_extrinsic(batch, charlie), wait_for_inclusion=True
    )
    assert receipt.is_success
