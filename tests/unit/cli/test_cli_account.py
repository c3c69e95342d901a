"""register, keys, balance."""

import json
import stat
from pathlib import Path

import bittensor_core
import pytest

from chutes_core.sdk.config import load_config

ACCOUNT = {
    "user_id": "user-9",
    "username": "alice",
    "hotkey": "5hot",
    "coldkey": "5cold",
    "payment_address": "5pay",
    "fingerprint": "f" * 48,
    "created_at": "2026-11-24T00:00:00Z",
}


@pytest.fixture
def wallet(tmp_path: Path) -> bittensor_core.Keypair:
    """A wallet on disk as Bittensor tools write it, without a coldkey."""
    folder = tmp_path / "wallets" / "mine"
    (folder / "hotkeys").mkdir(parents=True)
    mnemonic = bittensor_core.Keypair.generate_mnemonic(12)
    hotkey = bittensor_core.Keypair.from_mnemonic(mnemonic)
    (folder / "hotkeys" / "hk").write_bytes(
        bytes(bittensor_core.serialized_keypair_to_keyfile_data(hotkey))
    )
    cold = bittensor_core.Keypair.from_uri("//Cold")
    (folder / "coldkeypub.txt").write_text(json.dumps({"ss58Address": cold.ss58_address}))
    return hotkey


@pytest.fixture
def arguments(tmp_path: Path) -> tuple[str, ...]:
    where = ("--wallet-path", str(tmp_path / "wallets"), "--wallet-name", "mine", "--hotkey", "hk")
    return ("register", "--username", "alice", *where)


def test_register_signs_and_writes_the_configuration(
    run, api, wallet, arguments, settings, monkeypatch
):
    """The signed registration gives an account, and the file holds it, readable by its owner."""
    monkeypatch.setenv("CHUTES_API_URL", api.url)
    api.on("POST /users/register", ACCOUNT)
    done = run(*arguments, "--token", "t")
    assert done.code == 0
    assert "5pay" in done.out
    assert ACCOUNT["fingerprint"] in done.out
    (request,) = api.requests
    assert request.caller == wallet.ss58_address
    assert "x-chutes-userid" not in request.headers
    cold = bittensor_core.Keypair.from_uri("//Cold").ss58_address
    assert request.json == {"username": "alice", "coldkey": cold}
    assert request.query == {"token": ["t"]}
    config = load_config()
    assert (config.user_id, config.payment_address) == ("user-9", "5pay")
    assert (config.hotkey_ss58, config.hotkey_name) == (wallet.ss58_address, "hk")
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600


def test_what_was_registered_signs_the_next_request(run, api, wallet, arguments, monkeypatch):
    """The seed in the file is the hotkey's own, and the user id is sent along."""
    monkeypatch.setenv("CHUTES_API_URL", api.url)
    api.on("POST /users/register", ACCOUNT)
    api.on("GET /users/me", {"username": "alice", "balance": 1.5, "payment_address": "5pay"})
    run(*arguments)
    done = run("balance", "--json")
    assert done.json["balance"] == 1.5
    assert api.requests[1].caller == wallet.ss58_address
    assert api.requests[1].headers["x-chutes-userid"] == "user-9"


def test_register_keeps_another_account(run, api, registered, wallet, arguments):
    """A configuration of another hotkey is not overwritten without --yes."""
    api.on("POST /users/register", ACCOUNT)
    done = run(*arguments)
    assert (done.code, api.requests) == (2, [])
    assert "already_configured" in done.err
    assert run(*arguments, "--yes").code == 0
    assert load_config().username == "alice"


def test_a_refused_registration_writes_nothing(run, api, wallet, arguments, settings, monkeypatch):
    """A taken name leaves no configuration behind."""
    monkeypatch.setenv("CHUTES_API_URL", api.url)
    api.on("POST /users/register", {"detail": "taken", "code": "username_taken"}, status=409)
    done = run(*arguments, "--json")
    assert (done.code, done.json["error"]["code"]) == (1, "username_taken")
    assert not settings.exists()


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("hotkeys/hk", None, "no_hotkey"),
        ("coldkeypub.txt", None, "no_coldkeypub"),
        ("hotkeys/hk", b"$NACL....", "encrypted_hotkey"),
        ("hotkeys/hk", b"not json", "bad_key_file"),
        ("hotkeys/hk", b"[]", "bad_key_file"),
        ("hotkeys/hk", b'{"secretSeed": "0x12"}', "bad_key_file"),
        ("hotkeys/hk", b'{"secretSeed": "0x' + b"zz" * 32 + b'"}', "bad_key_file"),
        ("coldkeypub.txt", b"{}", "bad_key_file"),
    ],
)
def test_wallet_files_that_do_not_serve(
    run, api, wallet, arguments, tmp_path, monkeypatch, file, content, code
):
    """A missing, encrypted or broken key file is named before anything is sent."""
    monkeypatch.setenv("CHUTES_API_URL", api.url)
    path = tmp_path / "wallets" / "mine" / file
    path.unlink() if content is None else path.write_bytes(content)
    done = run(*arguments, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, code)
    assert not api.requests


@pytest.mark.parametrize(
    ("flags", "scopes"),
    [
        (("--admin",), []),
        (
            ("--chutes", "--action", "invoke"),
            [{"object_type": "chutes", "object_id": None, "action": "invoke"}],
        ),
        (
            ("--images", "--chute-ids", "c1", "--chute-ids", "c2"),
            [
                {"object_type": "images", "object_id": None, "action": None},
                {"object_type": "chutes", "object_id": "c1", "action": None},
                {"object_type": "chutes", "object_id": "c2", "action": None},
            ],
        ),
        (
            ("--json-input", '[{"object_type": "invocations", "action": "read"}]'),
            [{"object_type": "invocations", "action": "read"}],
        ),
    ],
)
def test_create_a_key(run, api, registered, flags, scopes):
    """The options become scopes, and the secret is shown."""
    key = {"api_key_id": "k1", "name": "n", "admin": False, "secret_key": "cpk_secret"}
    api.on("POST /api_keys/", key)
    done = run("keys", "create", "--name", "n", *flags)
    assert done.code == 0
    assert "cpk_secret" in done.out
    (request,) = api.requests
    assert request.json == {"name": "n", "admin": "--admin" in flags, "scopes": scopes}
    assert request.caller == registered.hotkey_ss58


def test_a_saved_key_is_used_for_calls(run, api, registered):
    """--save keeps the key in the configuration."""
    api.on("POST /api_keys/", {"api_key_id": "k1", "name": "n", "secret_key": "cpk_secret"})
    assert run("keys", "create", "--name", "n", "--admin", "--save").code == 0
    assert load_config().api_key == "cpk_secret"
    assert load_config().hotkey_seed == registered.hotkey_seed


@pytest.mark.parametrize("flags", [(), ("--json-input", "{"), ("--json-input", "{}")])
def test_a_key_needs_readable_scopes(run, api, registered, flags):
    """Without scopes, or with ones that are no list, nothing is sent."""
    assert run("keys", "create", "--name", "n", *flags).code == 2
    assert not api.requests


def test_a_key_is_bound_in_time_money_and_rate(run, api, registered):
    """What was asked for is sent as the API takes it, and nothing where nothing was."""
    api.on("POST /api_keys/", {"api_key_id": "k1", "name": "n", "secret_key": "cpk_secret"})
    flags = ("--expires", "2030-01-31", "--budget", "0.5", "--calls-per-minute", "7")
    assert run("keys", "create", "--name", "n", "--admin", *flags).code == 0
    assert run("keys", "create", "--name", "n", "--admin").code == 0
    bound, free = (request.json for request in api.requests)
    assert bound["expires_at"] == "2030-01-31T00:00:00Z"
    assert (bound["budget_rao"], bound["calls_per_minute"]) == (500_000_000, 7)
    assert set(free) == {"name", "admin", "scopes"}


def test_list_get_and_delete_keys(run, api, registered):
    """Keys are listed without secrets and deleted by id, with --yes where nobody can answer."""
    item = {"api_key_id": "k1", "name": "mine", "admin": True, "scopes": []}
    api.on("GET /api_keys/", {"total": 1, "page": 0, "limit": 25, "items": [item]})
    api.on("GET /api_keys/k1", item)
    api.on("DELETE /api_keys/k1", {"api_key_id": "k1"})
    assert "mine" in run("keys", "list").out
    assert run("keys", "list", "--json").json["total"] == 1
    assert run("keys", "get", "k1", "--json").json == item
    refused = run("keys", "delete", "k1")
    assert (refused.code, "needs_yes" in refused.err) == (2, True)
    assert run("keys", "delete", "k1", "--yes").code == 0
    assert api.requests[-1].method == "DELETE"


def test_a_nonce_that_another_process_used_is_replaced(run, api, registered):
    """Two commands within one second both succeed, though each signature is accepted once."""
    api.on("GET /users/me", {"username": "bob"})
    assert [run("balance").code for _ in range(4)] == [0, 0, 0, 0]
    assert len({request.headers["x-chutes-nonce"] for request in api.requests}) == 4
