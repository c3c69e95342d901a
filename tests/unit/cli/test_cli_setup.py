"""doctor, validators, completion, --quiet, --config-path, tables, images logs, transfers, logos."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bittensor_core import Keypair

from chutes_core.cli import validators
from chutes_core.cli.main import COMMANDS
from chutes_core.cli.options import LINE_WIDTH, table
from chutes_core.cli.validators import Listed, state_of
from chutes_core.sdk.config import load_config
from chutes_core.wire.control import Handshake
from chutes_core.wire.discovery import WellKnown

GENESIS = "0x" + "ab" * 32
# Verbs of the public command (PyPI chutes 0.6.9), and what they take.
PUBLIC = {
    "register": ("--config-path", "--username", "--wallets-path", "--wallet", "--hotkey"),
    "report": ("--invocation-id", "--config-path", "--reason"),
    "run": ("--host", "--port", "--dev", "--debug", "--dev-job-method", "--dev-job-data-path"),
    "deploy": ("--config-path", "--logo", "--debug", "--public", "--accept-fee"),
    "build": (
        *("--config-path", "--logo", "--local", "--debug", "--include-cwd", "--wait"),
        *("--public", "--no-public"),
    ),
    "share": ("--chute-id", "--user-id", "--config-path", "--remove", "--no-remove"),
    "warmup": ("--config-path", "--stream-logs", "--dashboard"),
    "login": ("--wallets-path", "--wallet", "--hotkey", "--browser"),
    "refinger": ("--config-path", "--hotkey-path"),
    "startup-logs": ("--instance", "-i", "--latest", "-l", "--config-path"),
    "transfer-balance": ("--amount", "--config-path"),
    "chutes list": ("--name", "--limit", "--page", "--include-public"),
    "chutes get": (),
    "chutes delete": (),
    "images list": ("--name", "--limit", "--page", "--include-public"),
    "images get": (),
    "images delete": (),
    "keys list": ("--name", "--limit", "--page"),
    "keys get": (),
    "keys delete": (),
    "keys create": (
        *("--name", "--admin", "--images", "--chutes", "--image-ids", "--chute-ids"),
        *("--action", "--json-input", "--config-path"),
    ),
    "secrets list": ("--limit", "--page"),
    "secrets get": (),
    "secrets delete": (),
    "secrets create": ("--purpose", "--key", "--value", "--config-path"),
}


@pytest.mark.parametrize("verb", PUBLIC)
def test_every_public_verb_and_flag_is_there(run, verb):
    """Who has scripts for the public command finds each verb and flag."""
    done = run(*verb.split(), "--help")
    assert done.code == 0
    for flag in PUBLIC[verb]:
        assert flag in done.out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_fits_a_terminal(run, name):
    """No line of a command's help is wider than 80 columns, and --json and --quiet are there."""
    done = run(name, "--help")
    assert all(len(line) <= LINE_WIDTH for line in done.out.splitlines())


def test_doctor_says_what_is_missing(run):
    """On a machine without anything: no error, but what to do next."""
    done = run("doctor", "--json")
    checks = {check["name"]: check for check in done.json["checks"]}
    assert done.code == 1
    assert checks["python"]["state"] == "ok"
    assert "register" in checks["configuration"]["hint"]
    assert checks["validator"]["state"] == "wrong"
    assert "CHUTES_API_URL" in checks["validator"]["hint"]


def test_doctor_is_content_where_all_is_well(run, api, registered, monkeypatch):
    """Validator, clock, account, key and chute file are looked at."""
    monkeypatch.setenv("CHUTES_API_KEY", "cpk_k")
    Path("app.py").write_text(
        "from chutes.chute import Chute\n"
        'chute = Chute(username="bob", name="app", image="bob/app:1")\n'
    )
    api.on("GET /ping", {"ok": True})
    api.on("GET /users/me", {"username": "bob", "balance": "1.5"})
    done = run("doctor", "app:chute", "--json")
    states = {check["name"]: check["state"] for check in done.json["checks"]}
    assert (done.code, done.json["ok"]) == (0, True)
    del states["docker"]  # there or not
    assert set(states.values()) == {"ok"}
    assert set(states) >= {"validator", "clock", "account", "API key", "chute file"}


def test_doctor_goes_on_after_a_failure(run, api, registered, settings):
    """A refused account, a file that others can read and a chute that does not load: all told."""
    settings.chmod(0o644)
    api.on("GET /ping", {"ok": True})
    api.on("GET /users/me", {"detail": "gone", "code": "no_account", "hint": "x"}, status=401)
    Path("app.py").write_text("1 / 0")
    done = run("doctor", "app:chute")
    assert done.code == 1
    assert done.out.count("WRONG") == 3
    assert "chmod 600" in done.out
    assert "ZeroDivisionError" in done.out


def answering(keypair, *, url="http://127.0.0.1:1", netuid=64):
    """Return a fetch that answers as a validator of this key."""

    def fetch(address):
        nonce = address.partition("nonce=")[2]
        known = WellKnown(
            handshake=Handshake(version="1"),
            hotkey=keypair.ss58_address,
            url=url,
            netuid=netuid,
            genesis_hash=GENESIS,
            nonce=nonce,
        )
        return known.signed(keypair).model_dump_json().encode()

    return fetch


def test_a_validator_is_up_when_its_own_hotkey_answers():
    """Another hotkey, another subnet and a web page are each told apart from a validator."""
    alice, bob = Keypair.create_from_uri("//Alice"), Keypair.create_from_uri("//Bob")
    one = Listed(alice.ss58_address, "http://127.0.0.1:1", 5)
    ask = {"genesis_hash": GENESIS, "netuid": 64}
    assert state_of(one, fetch=answering(alice), **ask) == "up"
    assert state_of(one, fetch=answering(bob), **ask) == "discovery_mismatch"
    assert state_of(one, fetch=answering(alice, netuid=1), **ask) == "discovery_mismatch"
    assert state_of(one, fetch=lambda _: b"<html>", **ask) == "not_a_validator"
    assert state_of(one, **ask) == "unreachable"


def test_validators_are_listed_and_one_is_kept(run, registered, settings, monkeypatch):
    """The list names state and stake; --use writes the address of one that is up, and no other."""
    listed = [Listed("5A", "http://a", 2_000_000_000), Listed("5B", "http://b", 1)]
    monkeypatch.setattr(validators, "read_chain", lambda network, netuid: (GENESIS, listed))
    states = {"5A": "up", "5B": "unreachable"}
    monkeypatch.setattr(validators, "state_of", lambda one, **_: states[one.hotkey])
    done = run("validators")
    assert "2.000000000 TAO" in done.out
    assert run("validators", "--use", "5B", "--json").json["error"]["code"] == "no_such_validator"
    assert run("validators", "--use", "5A").code == 0
    assert load_config({"CHUTES_CONFIG_PATH": str(settings)}).api_url == "http://a"


def test_without_the_chain_library_validators_says_what_to_do(run, monkeypatch):
    """The SDK alone can read no chain."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = run("validators", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "chain_library_missing")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_gets_a_script(run, shell):
    """Each shell's script calls us back for its words."""
    done = run("completion", shell)
    assert done.code == 0
    assert "_CHUTES_COMPLETE" in done.out


def test_completion_knows_commands_and_flags():
    """What the script asks for is answered from the table of commands."""
    program = "import sys; from chutes_core.cli.main import main; sys.exit(main())"
    environ = {"_CHUTES_COMPLETE": "bash_complete", "COMP_WORDS": "chutes dep", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "plain,deploy" in done.stdout
    assert "plain,deposit" in done.stdout


def test_quiet_keeps_progress_back(run, api, registered):
    """With --quiet stderr stays empty, and the answer comes all the same."""
    api.on("POST /secrets/", {"secret_id": "s1", "note": "the miner can read it"})
    arguments = ("secrets", "create", "--purpose", "a", "--key", "K", "--value", "v")
    assert "the miner can read it" in run(*arguments).err
    quiet = run(*arguments, "--quiet")
    assert (quiet.code, quiet.err) == (0, "")
    assert "s1" in quiet.out


def test_a_configuration_file_can_be_named(run, api, registered, settings, monkeypatch):
    """--config-path wins over CHUTES_CONFIG_PATH."""
    api.on("GET /users/me", {"username": "bob", "balance": "1"})
    monkeypatch.setenv("CHUTES_CONFIG_PATH", "/nonexistent/config.ini")
    assert run("balance").code == 2
    assert run("balance", "--config-path", str(settings)).code == 0


def test_a_row_that_is_too_wide_is_broken_and_nothing_is_cut():
    """Ids stay whole, and no line is wider than a terminal."""
    row = ("0050bf1b-4362-5e1f-9930-5841d750b22a", "a-user/a-long-name-of-a-model-7b:1.0", "built")
    shown = table([row], ("ID", "NAME", "STATUS"))
    assert all(len(line) <= LINE_WIDTH for line in shown.splitlines())
    assert all(cell in shown for cell in row)


def test_the_log_of_a_build_is_printed(run, api, registered):
    """By images logs, or by logs with the image's name."""
    api.on("GET /images/bob/app:1", {"image_id": "i1"})
    event = json.dumps({"log": {"log_type": "stdout", "log": "STEP 1"}, "offset": "1"})
    api.on("GET /images/i1/logs", f"data: {event}\n\nDONE\n\n".encode())
    assert run("images", "logs", "bob/app:1").out == "STEP 1\n"
    assert run("logs", "bob/app:1", "--json").json == {"log": "STEP 1"}


def test_credit_is_given_once_and_only_after_a_yes(run, api, registered):
    """The transfer carries a key of its own; without --yes and a terminal nothing is sent."""
    api.on("POST /users/balance_transfer", {"status": "transferred", "tao": "0.500000000"})
    refused = run("transfer-balance", "friend", "--amount", "0.5", "--json")
    assert refused.json["error"]["code"] == "needs_yes"
    assert api.requests == []
    assert run("transfer-balance", "friend", "--amount", "0.5", "--yes").code == 0
    body = api.requests[0].json
    assert (body["user_id"], body["amount"]) == ("friend", "0.500000000")
    assert len(body["key"]) == 32


def test_all_credit_is_given_where_no_amount_is(run, api, registered):
    """As the public command does; the balance is asked for first."""
    api.on("GET /users/me", {"balance_rao": 1_250_000_000})
    api.on("POST /users/balance_transfer", {"status": "transferred", "tao": "1.250000000"})
    assert run("transfer-balance", "friend", "--yes").code == 0
    assert api.requests[-1].json["amount"] == "1.250000000"


def test_a_logo_file_is_uploaded_before_the_deployment(run, api, registered):
    """A file becomes an id; what is no file is an id already."""
    Path("app.py").write_text(
        "from chutes.chute import Chute\n"
        'chute = Chute(username="bob", name="app", image="bob/app:1")\n'
    )
    Path("logo.png").write_bytes(b"\x89PNG")
    api.on("POST /logos/", {"logo_id": "l1"})
    api.on("POST /chutes/", {"chute_id": "c", "version": "v", "name": "app"})
    for given in ("logo.png", "l2"):
        assert run("deploy", "app:chute", "--logo", given).code == 0
    sent = [request.json["logo_id"] for request in api.requests if request.path == "/chutes/"]
    assert sent == ["l1", "l2"]
