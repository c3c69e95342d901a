import json

import pytest
from bittensor_core import Keypair

from chutes_core.wire.receipt import Receipt, ReceiptBatch, ReceiptCall

VALIDATOR = Keypair.create_from_uri("//Validator")
CALL = {
    "sequence": 1,
    "invocation_id": "inv-1",
    "user_id": "u",
    "chute_id": "c",
    "launch_id": "l",
    "rate_id": "r",
    "rao_per_hour": 3_600_000_000,
    "hold_rao": 1_000_000,
    "charge_rao": 500,
    "free": False,
    "started_at_us": 1,
    "usage_us": 500,
    "bytes_in": 1,
    "bytes_out": 2,
    "attempts": 1,
    "status": 200,
    "outcome": "ok",
}


@pytest.fixture
def document() -> dict:
    call = ReceiptCall(**CALL)
    batch = ReceiptBatch(
        genesis_hash="0xg",
        netuid=64,
        validator_hotkey=VALIDATOR.ss58_address,
        worker="w",
        first=1,
        last=1,
        count=1,
        root=call.leaf().hex(),
    )
    made = Receipt(batch=batch, signature=batch.signed(VALIDATOR), position=0, path=(), call=call)
    return json.loads(made.model_dump_json())


def test_a_receipt_is_fetched_checked_and_kept(api, registered, run, document, tmp_path):
    """What was measured and charged is shown; the file verifies later without a server."""
    api.on("GET /invocations/inv-1/receipt", document)
    kept = tmp_path / "receipt.json"
    done = run("receipt", "inv-1", "--out", str(kept))
    assert done.code == 0, done.err
    assert "0.0000005" in done.out
    assert VALIDATOR.ss58_address in done.out
    again = run("receipt", "--file", str(kept), "--validator", VALIDATOR.ss58_address, "--json")
    assert (again.code, again.json) == (0, document)
    assert len(api.requests) == 1


def test_a_receipt_that_was_changed_is_refused(run, document, tmp_path):
    """One rao less, or another validator, and it holds no more."""
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(document))
    other = Keypair.create_from_uri("//Other").ss58_address
    refused = run("receipt", "--file", str(file), "--validator", other, "--json")
    assert (refused.code, refused.json["error"]["code"]) == (2, "bad_receipt")
    document["call"]["charge_rao"] -= 1
    file.write_text(json.dumps(document))
    refused = run("receipt", "--file", str(file), "--json")
    assert (refused.code, refused.json["error"]["code"]) == (2, "bad_receipt")


def test_the_receipt_of_another_call_is_none_of_this_one(api, registered, run, document):
    """However well it is signed."""
    api.on("GET /invocations/inv-2/receipt", document)
    refused = run("receipt", "inv-2", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (2, "another_receipt")


def test_what_is_no_receipt_is_said_to_be_none(run, tmp_path):
    """Neither nothing, nor both, nor any file."""
    file = tmp_path / "receipt.json"
    file.write_text("{}")
    assert run("receipt", "--file", str(file), "--json").json["error"]["code"] == "not_a_receipt"
    assert run("receipt", "--json").json["error"]["code"] == "which_receipt"
    both = run("receipt", "inv-1", "--file", str(file), "--json")
    assert both.json["error"]["code"] == "which_receipt"
