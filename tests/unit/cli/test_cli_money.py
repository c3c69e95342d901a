"""refund, statement, link, unlink, recover: what is sent, shown, and with which exit code."""

import bittensor_core
import pytest
from bittensor_core import Keypair

from chutes_core.cli import refund as refunding
from chutes_core.sdk.config import load_config
from scripts.localnet import write_wallet

VALIDATOR = "5Validator"


def refund(state="requested", **changes):
    """Return a refund as the API shows it."""
    return {
        "refund_id": "r-1",
        "state": state,
        "address": "5Cold",
        "amount_rao": 2 * 10**9,
        "paid_rao": 0,
        "fee_rao": 0,
        "requested_at": "2026-11-24T00:00:00Z",
        "updated_at": "2026-11-24T00:00:00Z",
        "extrinsic_hash": None,
        "block": None,
        "reason": None,
    } | changes


@pytest.fixture
def keys(tmp_path):
    """A wallet on disk, and the options that name it."""
    hotkey = Keypair.create_from_mnemonic(Keypair.generate_mnemonic())  # a file holds its seed
    coldkey = Keypair.create_from_uri("//Cold")
    write_wallet(tmp_path / "wallets", "mine", coldkey, hotkey, with_coldkey=False)
    options = ("--wallet-path", str(tmp_path / "wallets"), "--wallet-name", "mine")
    return hotkey, coldkey, options


def test_a_refund_is_asked_for_and_followed_to_its_end(run, api, registered, monkeypatch):
    """Named deposits and an address go along; --wait shows what was paid, less the fee."""
    monkeypatch.setattr(refunding, "_POLL_S", 0.0)
    api.on("POST /return_developer_deposit", refund())
    api.on("GET /users/me/refunds/r-1", refund("submitted"))
    api.on("GET /users/me/refunds/r-1", refund("finalized", paid_rao=19 * 10**8, fee_rao=10**8))
    asked = ("--deposit", "d-1", "--deposit", "d-2", "--to", "5Else")
    done = run("refund", *asked, "--wait", "--yes")
    assert done.code == 0
    assert "1.900000000" in done.out
    assert api.requests[0].json == {"address": "5Else", "deposits": ["d-1", "d-2"]}


def test_a_refund_that_fails_or_takes_long_is_no_success(run, api, registered):
    """Failed is exit 1 with the reason; still under way after the limit says how to look."""
    api.on("POST /return_developer_deposit", refund("failed", reason="fee_exceeds_deposit"))
    failed = run("refund", "--yes", "--json")
    assert (failed.code, failed.json["error"]["code"]) == (1, "refund_failed")
    assert "fee_exceeds_deposit" in failed.json["error"]["message"]
    api.replies.clear()
    api.on("POST /return_developer_deposit", refund("submitted"))
    late = run("refund", "--yes", "--wait", "--timeout", "0", "--json")
    assert late.json["error"]["code"] == "refund_under_way"
    assert "--list" in late.json["error"]["hint"]


def test_refunds_are_listed_and_none_is_asked_without_a_yes(run, api, registered):
    """--list asks for nothing; without --yes and a terminal nothing is sent."""
    api.on("GET /users/me/deposits", {"refunds": [refund("finalized")]})
    assert "finalized" in run("refund", "--list").out
    assert run("refund", "--json").json["error"]["code"] == "needs_yes"
    assert [request.path for request in api.requests] == ["/users/me/deposits"]


def test_a_statement_comes_in_pages(run, api, registered):
    """Page and limit are asked for; the total says how many there are."""
    line = {"at": "2026-11-24", "kind": "payment", "tao": "1.5", "rao": 1, "key": "transfer:0x1"}
    api.on("GET /users/me/statement", {"total": 41, "page": 2, "limit": 20, "items": [line]})
    done = run("statement", "--page", "2", "--limit", "20")
    assert "transfer:0x1" in done.out
    assert "41 lines in all" in done.out
    assert api.requests[0].query == {"page": ["2"], "limit": ["20"]}


@pytest.mark.parametrize("kind", ["validator", "subnet_owner"])
def test_a_link_is_signed_by_the_linked_hotkey(run, api, registered, keys, kind):
    """The signature is over hotkey and username, by the hotkey of the wallet that is named."""
    hotkey, _, options = keys
    api.on("GET /users/me", {"username": "bob"})
    api.on(f"GET /users/link_{kind}", {"status": "linked", "kind": kind})
    flag = f"--{kind.replace('_', '-')}"
    assert run("link", flag, *options, "--json").json["status"] == "linked"
    query = api.requests[-1].query
    assert query["hotkey"] == [hotkey.ss58_address]
    signed = f"{hotkey.ss58_address}:bob".encode()
    assert hotkey.verify(signed, bytes.fromhex(query["signature"][0]))


def test_a_coldkey_is_proven_by_the_chain_or_by_its_signature(run, api, registered):
    """Where the chain does not say it, the text to sign is printed, and goes along when signed."""
    me = {"username": "bob", "user_id": "user-1", "coldkey": "5Cold"}
    api.on("GET /users/me", me)
    api.on("POST /users/coldkey_proof", {"coldkey": "5Cold", "proven": "chain"})
    assert run("link", "--coldkey", "--json").json["proven"] == "chain"
    api.replies.clear()
    api.on("GET /users/me", me)
    api.on("GET /.well-known/chutes", {"hotkey": VALIDATOR})
    refused = {"detail": "not the owner", "code": "hotkey_not_owned"}
    api.on("POST /users/coldkey_proof", refused, status=409)
    told = run("link", "--coldkey").out
    assert f"chutes-coldkey/1|{VALIDATOR}|user-1|5Cold|" in told
    api.replies.clear()
    api.on("GET /users/me", me)
    api.on("POST /users/coldkey_proof", {"coldkey": "5Cold", "proven": "signature"})
    proof = ("--expiry", "1900000000", "--signature", "ab")
    assert run("link", "--coldkey", *proof, "--json").json["proven"] == "signature"
    sent = {"coldkey": "5Cold", "expiry": 1_900_000_000, "signature": "ab"}
    assert api.requests[-1].json == sent
    assert run("link").code == 2


def test_links_are_listed_and_ended(run, api, registered):
    """Without an address the links; with one, it ends."""
    items = [{"hotkey": "5Hot", "kind": "validator", "valid": True, "at": "2026"}]
    api.on("GET /users/me/links", {"total": 1, "items": items})
    api.on("DELETE /users/me/links/5Hot", {"status": "unlinked", "hotkey": "5Hot"})
    assert run("unlink").out == "5Hot  validator\n"
    assert run("unlink", "5Hot").out == "unlinked 5Hot\n"


def test_an_account_is_taken_back_by_its_coldkey(run, api, keys, monkeypatch):
    """First the text to sign; then the new hotkey asks, and the configuration is its."""
    hotkey, coldkey, options = keys
    monkeypatch.setenv("CHUTES_API_URL", api.url)
    api.on("GET /.well-known/chutes", {"hotkey": VALIDATOR})
    who = ("recover", "--user-id", "user-1", *options)
    told = run(*who).out
    place = f"user-1|{coldkey.ss58_address}|{hotkey.ss58_address}"
    assert f"chutes-recover/1|{VALIDATOR}|{place}|" in told
    account = {"username": "bob", "user_id": "user-1", "payment_address": "5pay"}
    api.on("POST /users/recover", account | {"fingerprint": "f" * 48})
    done = run(*who, "--expiry", "1900000000", "--signature", "ab")
    assert (done.code, "f" * 48 in done.out) == (0, True)
    request = api.requests[-1]
    assert request.caller == hotkey.ss58_address
    assert request.json["coldkey"] == coldkey.ss58_address
    config = load_config()
    assert (config.user_id, config.hotkey_ss58) == ("user-1", hotkey.ss58_address)
    seed = bytes.fromhex(config.hotkey_seed)
    assert bittensor_core.Keypair.create_from_seed(seed).ss58_address == hotkey.ss58_address
