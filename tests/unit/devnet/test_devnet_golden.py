"""Conformance with what a real node and the SDK recorded on runtime 461."""

import json

import pytest

from chutes_core.devnet.codec import Codec, blake2_256
from chutes_core.devnet.extrinsics import decode_extrinsic, header_bytes, inherent
from chutes_core.devnet.metadata import DEFAULT_METADATA, load_metadata, patch_metadata
from chutes_core.devnet.scale import Reader


@pytest.fixture(scope="module")
def golden():
    if not DEFAULT_METADATA.is_file():
        pytest.skip(f"{DEFAULT_METADATA} is missing: python scripts/fetch_metadata.py")
    return json.loads(DEFAULT_METADATA.read_text("utf-8"))


def octets(text):
    return bytes.fromhex(text[2:])


def test_storage_keys_are_those_of_the_chain(codec, golden):
    """Hashers and prefixes survive the patch."""
    for case in golden["storage_keys"]:
        key = codec.key(case["pallet"], case["storage_function"], tuple(case["params"]))
        assert key == octets(case["key_hex"])


def test_storage_values_round_trip(codec, golden):
    """What a real node stored decodes, and encodes to the same bytes."""
    for case in golden["storage_values"]:
        item = (case["pallet"], case["storage_function"])
        raw = None if case["raw_hex"] is None else octets(case["raw_hex"])
        value = codec.decode_value(*item, raw)
        assert value == case["decoded"]
        if raw is not None:
            assert codec.encode_value(*item, value) == raw


def test_recorded_calls_decode_to_their_bytes(codec, golden):
    """Each recorded call decodes, nested ones recover their exact bytes."""
    for case in golden["calls"]:
        call = codec.decode_call(octets(case["data_hex"]))
        assert (call.pallet, call.function) == (case["module"], case["function"])
        for nested in call.args.get("calls", [call.args["call"]] if "call" in call.args else []):
            assert codec.nested_call(nested).data in call.data


def test_recorded_extrinsics_decode(codec, golden):
    """Nonce, era, tip, signature and hash of the SDK's extrinsics are read as written."""
    for case in golden["extrinsics"]:
        extrinsic = decode_extrinsic(codec, octets(case["extrinsic_hex"]))
        assert extrinsic.hash == octets(case["extrinsic_hash"])
        assert extrinsic.signer == case["address"]
        assert extrinsic.signature == octets(case["signature_hex"])
        assert (extrinsic.nonce, extrinsic.tip) == (case["nonce"], case["tip"])
        period = 0 if case["era"] == "00" else case["era"]["period"]
        assert extrinsic.era.period == period
        assert extrinsic.call.data == octets(case["call_data_hex"])


def test_signed_payloads_are_those_the_sdk_signs(codec, golden):
    """Call, extensions, versions, genesis and era block hash in the order of the runtime."""
    network = golden["network"]
    versions = network["spec_version"], network["transaction_version"]
    implied = b"".join(number.to_bytes(4, "little") for number in versions)
    for case in golden["signature_payloads"]:
        payload = octets(case["payload_hex"])
        anchor = case.get("era_birth_block_hash", network["genesis_hash"])
        tail = implied + octets(network["genesis_hash"]) + octets(anchor) + b"\x00"
        assert payload.startswith(octets(case["call_data_hex"]))
        assert payload.endswith(tail)


def test_recorded_events_encode_to_their_bytes(codec, golden):
    """The events of a real block, given as values, encode to what the node stored."""
    records = [
        {
            "phase": {"ApplyExtrinsic": event["extrinsic_idx"]}
            if event["phase"] == "ApplyExtrinsic"
            else event["phase"],
            "event": {event["module_id"]: {event["event_id"]: event["attributes"]}},
            "topics": event["topics"],
        }
        for event in golden["events"]["decoded"]
    ]
    assert codec.encode_events(records) == octets(golden["events"]["raw_hex"])


def test_an_inherent_looks_as_on_the_chain(codec, golden):
    """Timestamp.set of the recorded block, made again, is the same bytes."""
    raw = octets(golden["block"]["raw"]["block"]["extrinsics"][0])
    call = codec.decode_call(Reader(raw, 2).rest())
    assert inherent(codec.compose_call(call.pallet, call.function, call.args)) == raw


def test_a_header_is_encoded_as_on_the_chain(golden):
    """The recorded header hashes to the recorded block hash, digest items included."""
    header = golden["block"]["raw"]["block"]["header"]
    logs = [octets(log) for log in header["digest"]["logs"]]
    parts = [octets(header[name]) for name in ("parentHash", "stateRoot", "extrinsicsRoot")]
    encoded = header_bytes(parts[0], int(header["number"], 16), parts[1], parts[2])
    encoded = encoded[:-1] + bytes([len(logs) << 2]) + b"".join(logs)
    assert "0x" + blake2_256(encoded).hex() == golden["block"]["block_hash"]


def test_the_fee_of_the_recorded_transfer_is_met(golden):
    """166,247 rao at the recorded weight and the length of a mortal transfer."""
    success = golden["receipt"]["triggered_events"][-1]["event"]["attributes"]
    weight = success["dispatch_info"]["weight"]["ref_time"]
    assert weight // 2_000 + 143 == golden["receipt"]["total_fee_amount"]


def test_the_patch_changes_two_things_only(golden):
    """SlotDuration and SubnetEpochConsensus; every other constant and entry stays."""
    unpatched = Codec(load_metadata(DEFAULT_METADATA))
    patched = Codec(patch_metadata(unpatched.metadata, block_ms=777))
    assert patched.runtime.constant("Aura", "SlotDuration") == 777
    assert patched.decode_value("SubtensorModule", "SubnetEpochConsensus", None) == "Yuma"
    before, after = (c.runtime.metadata_ir() for c in (unpatched, patched))
    for old, new in zip(before["pallets"], after["pallets"], strict=True):
        added = [entry for entry in new["storage"] if entry not in old["storage"]]
        names = [entry["name"] for entry in added]
        assert names == (["SubnetEpochConsensus"] if new["name"] == "SubtensorModule" else [])
        assert {**new, "storage": []} == {**old, "storage": []}
    for case in golden["constants"]:
        if case["name"] != "SlotDuration":
            assert patched.runtime.constant(case["module"], case["name"]) == case["decoded"]
