"""login, refinger, startup-logs and the dashboard: what the public verbs do here, and what not."""

import json
from dataclasses import replace

import pytest
from bittensor_core import Keypair
from rich.console import Console

from chutes_core.cli.dashboard import KEPT_LINES, Board
from chutes_core.sdk.config import load_config, save_config
from scripts.localnet import write_wallet

ACCOUNT = {"username": "alice", "user_id": "user-9", "payment_address": "5pay"}


def chute(*instances):
    rows = [
        {"instance_id": one, "state": "active", "gpu": "h100", "version": "v"} for one in instances
    ]
    return {
        "name": "app",
        "version": "v",
        "slug": "bob-app",
        "phase": "starting",
        "reason": "the image is fetched",
        "hot": False,
        "instances": rows,
        "node_selector": {"gpu_count": 2, "min_vram_gb_per_gpu": 80},
    }


@pytest.fixture
def hotkey(tmp_path):
    """The hotkey of a wallet on disk."""
    hotkey = Keypair.create_from_mnemonic(Keypair.generate_mnemonic())
    write_wallet(
        tmp_path / "wallets", "mine", Keypair.create_from_uri("//Cold"), hotkey, with_coldkey=False
    )
    return hotkey


@pytest.fixture
def wallet(tmp_path, hotkey):
    """The options that name it, as the public command spells them."""
    return ("--wallets-path", str(tmp_path / "wallets"), "--wallet", "mine", "--hotkey", "default")


def test_login_writes_the_configuration_of_an_account(run, api, hotkey, wallet, monkeypatch):
    """On a second machine: the hotkey signs, the validator says whose it is, the file is there."""
    monkeypatch.setenv("CHUTES_API_URL", api.url)
    api.on("GET /users/me", ACCOUNT)
    assert run("login", *wallet, "--no-browser").code == 0
    (request,) = api.requests
    assert request.caller == hotkey.ss58_address
    assert "x-chutes-userid" not in request.headers
    config = load_config()
    assert (config.username, config.user_id) == ("alice", "user-9")
    assert config.hotkey_ss58 == hotkey.ss58_address
    assert run("login").code == 0  # what is configured is checked anew


def test_login_keeps_another_account_and_leaves_no_key_of_it(
    run, api, registered, hotkey, wallet, settings
):
    """Without --yes nothing is written; with it the other account's API key goes."""
    save_config(replace(registered, api_key="cpk_old"), settings)
    api.on("GET /users/me", ACCOUNT)
    assert run("login", *wallet, "--json").json["error"]["code"] == "already_configured"
    assert load_config().username == "bob"
    assert run("login", *wallet, "--yes").code == 0
    config = load_config()
    assert (config.username, config.api_key or None) == ("alice", None)


def test_a_key_of_the_environment_is_not_written_down(run, api, registered, monkeypatch, settings):
    """It is of this shell; the file keeps its own."""
    monkeypatch.setenv("CHUTES_API_KEY", "cpk_of_the_shell")
    api.on("GET /users/me", ACCOUNT)
    assert run("login").code == 0
    assert "cpk_of_the_shell" not in settings.read_text()


def test_a_hotkey_without_an_account_logs_in_nowhere(run, api, wallet, settings, monkeypatch):
    """The validator's answer and hint are shown, and no file is made."""
    monkeypatch.setenv("CHUTES_API_URL", api.url)
    body = {"detail": "no account", "code": "not_registered", "hint": "run: chutes register"}
    api.on("GET /users/me", body, status=401)
    done = run("login", *wallet)
    assert (done.code, settings.exists()) == (1, False)
    assert "chutes register" in done.err


@pytest.mark.parametrize(
    ("arguments", "code"), [(("login", "--browser"), "no_website"), (("refinger",), "not_offered")]
)
def test_what_needs_a_website_is_refused_in_plain_words(run, arguments, code):
    """Exit 2, and what to do instead; nothing is asked of anybody."""
    done = run(*arguments, "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == code
    assert done.json["error"]["hint"]


def test_startup_logs_end_by_themselves(run, api, registered):
    """All lines that there are of the newest instance, and no waiting for more."""
    api.on("GET /chutes/app", chute("i1", "i2"))
    lines = "".join(f"data: {json.dumps({'log': text})}\n\n" for text in ("pulled", "ready"))
    api.on("GET /instances/i2/logs", lines.encode())
    done = run("startup-logs", "app", "--latest")
    assert (done.code, done.out) == (0, "pulled\nready\n")
    assert api.requests[-1].query == {"backfill": ["10000"], "follow": ["false"]}


def test_startup_logs_guess_no_instance(run, api, registered):
    """Of several, one has to be named; of none, the way to get one is said."""
    api.on("GET /chutes/app", chute("i1", "i2"))
    done = run("startup-logs", "app", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "which_instance")
    assert "i1, i2" in done.json["error"]["message"]
    api.on("GET /instances/i1/logs", b'data: {"log": "one"}\n\n')
    assert run("startup-logs", "app", "-i", "i1").out == "one\n"
    api.replies.clear()
    api.on("GET /chutes/app", chute())
    assert "chutes warmup app" in run("startup-logs", "app").err


def test_without_a_terminal_the_dashboard_is_lines(run, api, registered, monkeypatch):
    """A script's log gets what a person would see drawn."""
    monkeypatch.setenv("CHUTES_API_KEY", "cpk_k")
    lines = b'data: {"status": "starting"}\n\ndata: {"status": "hot", "hot": true}\n\n'
    api.on("GET /chutes/warmup/app", lines)
    done = run("warmup", "app", "--dashboard")
    assert (done.code, done.out.strip()) == (0, "app is hot")
    assert "no terminal" in done.err
    assert "starting" in done.err


def test_the_dashboard_shows_phase_gpus_instances_and_the_last_lines():
    """Within 80 columns; older lines go, and a bracket of a log is no markup."""
    board = Board("app", lambda: chute("2f6a1c9e-0000-4000-8000-000000000001"))
    for number in range(KEPT_LINES + 5):
        screen = board.told({"status": "starting", "log": f"[red]line {number}"})
    console = Console(width=100)
    with console.capture() as captured:
        console.print(screen)
    shown = captured.get()
    assert all(len(line.rstrip()) <= 80 for line in shown.splitlines())
    for part in ("app", "2 x GPU of at least 80 GB", "the image is fetched", "2f6a1c9e"):
        assert part in shown
    assert f"[red]line {KEPT_LINES + 4}" in shown
    assert "line 0" not in shown
