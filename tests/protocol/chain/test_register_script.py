"""scripts/register.py as a person runs it: a process, a wallet on disk, stdin closed."""

import json
import subprocess
import sys
from pathlib import Path

import bittensor as bt
import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "register.py"


@pytest.fixture
def wallet(tmp_path, client, key):
    """A wallet with both keys and ten TAO."""
    made = bt.Wallet("w", "h", str(tmp_path / "wallets"))
    made.create_new_coldkey(use_password=False, suppress=True)
    made.create_new_hotkey(suppress=True)
    fund = bt.calls.Balances.transfer_keep_alive(
        dest=made.coldkeypub.ss58_address, value=10_000_000_000
    )
    client.call(key("//Dave"), fund, "fund the wallet")
    return made


@pytest.fixture
def run(devnet, wallet):
    """Run the script with options; return exit status, JSON and standard error."""

    def call(*options):
        done = subprocess.run(
            [
                *(sys.executable, str(SCRIPT), "--network", devnet.url),
                *("--netuid", str(devnet.netuid), "--wallet-path", wallet.path),
                *("--wallet-name", "w", "--hotkey", "h", "--json", *options),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        return done.returncode, json.loads(done.stdout), done.stderr

    return call


def test_dry_run_shows_and_pays_nothing(run, client, wallet):
    """Price, immunity and slots are shown; no uid is made."""
    status, shown, _ = run("--dry-run")
    assert status == 0
    assert shown["outcome"] == "dry_run"
    assert shown["burn_rao"] == client.subnet().burn_rao
    assert shown["immunity_blocks"] == client.subnet().immunity_period
    assert shown["slots_used"] < shown["slots_max"]
    assert client.metagraph().by_hotkey(wallet.hotkey.ss58_address) is None


def test_registering_twice_pays_once(run, client, wallet):
    """The second run finds the uid and exits 0 without an extrinsic."""
    status, done, _ = run("--yes")
    assert (status, done["outcome"]) == (0, "registered")
    neuron = client.metagraph().by_hotkey(wallet.hotkey.ss58_address)
    assert done["uid"] == neuron.uid
    assert done["block_number"] == neuron.registered_at_block
    balance = client.balance_rao(wallet.coldkeypub.ss58_address)
    status, again, _ = run("--yes")
    assert (status, again["outcome"], again["uid"]) == (0, "already_registered", neuron.uid)
    assert client.balance_rao(wallet.coldkeypub.ss58_address) == balance


def test_a_price_above_the_limit_is_refused_with_a_code(run, client, wallet):
    """--max-burn below the price exits 1 and says what to do."""
    status, told, stderr = run("--yes", "--max-burn", "0.000000001")
    assert (status, told["error"]) == (1, "burn_over_limit")
    assert told["hint"] in stderr
    assert client.metagraph().by_hotkey(wallet.hotkey.ss58_address) is None


def test_a_price_within_the_limit_is_paid(run, client, wallet):
    """--max-burn above the price registers through the limited call."""
    status, done, _ = run("--yes", "--max-burn", "5")
    assert (status, done["outcome"]) == (0, "registered")
    assert client.metagraph().by_hotkey(wallet.hotkey.ss58_address).uid == done["uid"]


def test_without_yes_and_without_a_terminal_nothing_is_paid(run):
    """Nobody can be asked with stdin closed: exit 1, not a hang."""
    status, told, _ = run()
    assert (status, told["error"]) == (1, "not_confirmed")


def test_an_encrypted_coldkey_without_a_terminal_is_an_error(run, wallet):
    """A password that nobody can type is a typed error."""
    wallet.coldkey_file.set_keypair(
        wallet.coldkey, encrypt=True, overwrite=True, password="correct horse"
    )
    status, told, _ = run("--yes")
    assert (status, told["error"]) == (1, "coldkey_locked")


def test_missing_keys_are_named(run, wallet):
    """A wallet without its coldkey says to go where the coldkey is."""
    Path(wallet.coldkey_file.path).unlink()
    status, told, _ = run("--yes")
    assert (status, told["error"]) == (1, "coldkey_missing")
    Path(wallet.hotkey_file.path).unlink()
    Path(wallet.hotkeypub_file.path).unlink()
    status, told, _ = run("--yes")
    assert (status, told["error"]) == (1, "key_missing")


def test_a_bad_price_is_refused(run):
    """A price that is no number of TAO is an error of its own."""
    status, told, _ = run("--max-burn", "many")
    assert (status, told["error"]) == (1, "bad_tao")
