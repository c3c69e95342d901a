"""Every error that can reach a person says what to do about it."""

import ast
from pathlib import Path

import pytest

from chutes_core.base import errors
from chutes_core.base.hints import HINTS

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.ChutesError)
}
# Rooms whose errors are answered over HTTP: to users and developers, and to other neurons.
ROOMS = ("validator", "wire", "miner/server.py", "miner/validator_api.py")
# Nothing that a caller could do, or nobody outside ever sees it: what is broken is ours.
WITHOUT = {
    "bad_deposit_terms": "a setting, refused at the start",
    "bad_evidence": "read back from our own disk",
    "bad_image_ref": "what a validator granted to its miner; the miner's log shows it",
    "bad_pong": "an instance is replaced",
    "bad_preamble": "the connection is closed without a word",
    "bad_public_key": "the connection is closed without a word",
    "bad_rate": "a setting, refused at the start with its field's name",
    "bad_seal": "the connection is closed without a word",
    "bad_seal_at_rest": "the vault's key does not fit the store",
    "bad_text": "a record that the rooms above should not have let through",
    "bad_transition": "a state machine's own check",
    "bad_treasury_key": "the signer does not start; its operator mends the key file",
    "bad_weights": "a score that is none",
    "blob_too_large": "checked before by the room that takes the upload",
    "bundle_mismatch": "the miner fetches it again",
    "constraint": "a record that the rooms above should not have let through",
    "deposit_moved": "two writers of one record; the loser reads anew",
    "discovery_mismatch": "another validator answers there; the miner skips it",
    "epoch_done": "the weight setter's own check",
    "extrinsic_in_flight": "the outbox waits",
    "frame_timeout": "the instance is replaced",
    "gpu_busy": "the hint is the lessee, which the caller knows",
    "image_moved": "two writers of one record; the loser reads anew",
    "intent_under_way": "the outbox waits",
    "job_moved": "two writers of one record; the loser reads anew",
    "journal_damaged": "the operator restores a backup",
    "launch_moved": "two writers of one record; the loser reads anew",
    "no_intent": "the weight setter's own check",
    "no_root": "a state machine's own check",
    "no_such_blob": "the operator restores a backup",
    "refund_moved": "two writers of one record; the loser reads anew",
    "store_unavailable": "the operator's disk",
    "unknown_gpu_class": "a score's own check",
    "url_too_long": "a setting, refused at the start",
    "wrong_address": "an order that the API host should not have written",
}


def raised_without_a_hint():
    """Yield (code, place) of every typed error that is made without a hint."""
    for room in ROOMS:
        path = ROOT / "chutes_core" / room
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text())):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                    continue
                if node.func.id not in KINDS or any(word.arg == "hint" for word in node.keywords):
                    continue
                if node.args and isinstance(node.args[0], ast.Constant):
                    yield node.args[0].value, f"{file.relative_to(ROOT)}:{node.lineno}"


def test_every_error_says_what_to_do():
    """A hint beside the raise, one in base/hints by the code, or a reason here why none helps."""
    missing = {
        code: place
        for code, place in raised_without_a_hint()
        if code not in HINTS and code not in WITHOUT
    }
    assert missing == {}


def test_no_code_is_on_both_lists():
    """A code has a hint or a reason to have none."""
    assert HINTS.keys() & WITHOUT.keys() == set()


@pytest.mark.parametrize(("code", "hint"), sorted(HINTS.items()))
def test_a_hint_is_used_where_none_is_given(code, hint):
    """ChutesError takes the hint of its code; one beside the raise wins."""
    assert errors.Invalid(code, "x").hint == hint
    assert errors.Invalid(code, "x", hint="y").hint == "y"
