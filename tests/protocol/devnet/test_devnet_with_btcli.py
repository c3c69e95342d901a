"""The unmodified btcli, as a person uses it: exit code and output of each command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chutes_core.base.units import RAO_PER_TAO
from chutes_core.devnet.genesis import dev_address
from chutes_core.devnet.launch import DevnetProcess

BTCLI = Path(sys.executable).with_name("btcli")
TIMEOUT_S = 180
FUNDS_TAO = 5_000


class Person:
    """Somebody with a wallet of their own and a terminal that nobody types into."""

    def __init__(self, devnet: DevnetProcess, home: Path) -> None:
        self.controls = devnet.controls()
        self._home = home
        self._common = [
            *("-n", devnet.url, "--fallback-endpoints", "none", "--archive-endpoints", "none"),
            *("-w", "alpha", "-H", "default", "--wallet-path", str(home / "wallets"), "--json"),
        ]
        self._environ = {name: v for name, v in os.environ.items() if not name.startswith("BT_")}
        self._environ |= {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "BITTENSOR_RUNTIME_CACHE_DIR": str(home / "cache"),
            "NO_COLOR": "1",
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BTCLI), *words, *self._common],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=self._environ,
        )

    def read(self, *words: str):
        """Return what a reading command prints."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def send(self, *words: str):
        """Return what a signing command prints; it must have succeeded."""
        outcome = self.read(*words, "-y")
        assert outcome["success"] is True
        assert outcome["extrinsic_id"]
        return outcome


@pytest.fixture(scope="module")
def person(metadata_file, tmp_path_factory):
    """A new wallet, funded with 5,000 TAO by force."""
    if not BTCLI.is_file():
        pytest.skip("btcli is not installed beside this Python")
    with DevnetProcess(block_seconds=0.2, tempo=20, dev_controls=True) as devnet:
        someone = Person(devnet, tmp_path_factory.mktemp("btcli"))
        made = someone.read("wallet", "create", "--no-password")
        data = {"free": FUNDS_TAO * RAO_PER_TAO, "reserved": 0, "frozen": 0, "flags": 0}
        record = {"nonce": 0, "consumers": 0, "providers": 1, "sufficients": 0, "data": data}
        someone.controls.set_storage({"System": {"Account": [[[made["coldkey_ss58"]], record]]}})
        yield someone


def test_wallet_and_balance(person):
    """The wallet is on disk, and its balance is the chain's."""
    shown = person.read("wallet", "show")
    [listed] = person.read("wallet", "list")["coldkeys"]
    balance = person.read("wallet", "balance")
    assert listed["ss58"] == shown["coldkey_ss58"] == balance["coldkey"]
    assert balance["free_tao"] == FUNDS_TAO


def test_transfer(person):
    """Bob has it, the sender paid it and the fee that was told."""
    bob = dev_address("//Bob")
    before = person.read("query", "balance", "--coldkey", bob)
    mine = person.read("wallet", "balance")["free_tao"]
    outcome = person.send("wallet", "transfer", "--dest", bob, "--amount", "1.5")
    after = person.read("query", "balance", "--coldkey", bob)
    assert _tao(after) - _tao(before) == pytest.approx(1.5)
    spent = mine - person.read("wallet", "balance")["free_tao"]
    assert spent == pytest.approx(1.5 + outcome["fee_tao"], abs=1e-8)


def test_a_transfer_of_too_much(person):
    """Exit code 1 and the SDK's own name for the reason."""
    words = ("wallet", "transfer", "--dest", dev_address("//Bob"), "--amount", "999999", "-y")
    done = person.run(*words)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "insufficient_balance"


def test_subnets(person):
    """The list, one subnet, its hyperparameters and costs."""
    listed = {row["netuid"]: row for row in person.read("subnets", "list")}
    assert listed[1]["name"] == "devnet"
    assert listed[1]["tempo"] == 20
    assert person.read("subnets", "show", "1")
    assert "immunity_period" in json.dumps(person.read("subnets", "hyperparameters", "1"))
    assert "0.1" in json.dumps(person.read("subnets", "burn-cost", "1"))
    assert "100" in json.dumps(person.read("subnets", "create-cost"))


def test_register_serve_stake_weigh(person):
    """From nothing to a validator that sets weights, in the order a person does it."""
    hotkey = person.read("wallet", "show")["hotkey_ss58"]
    registered = person.send("subnets", "register", "--netuid", "1")
    assert registered["data"]["shielded"] is True
    person.send("tx", "serve-axon", "--netuid", "1", "--ip", "127.0.0.1", "--port", "8091")
    person.send("stake", "add", "--netuid", "1", "--amount", "2000")
    person.send("stake", "add", "--netuid", "1", "--amount", "1", "--no-mev-shield")
    [position] = person.read("stake", "list")
    assert (position["hotkey"], position["stake_amount"]) == (hotkey, 2_001.0)
    person.controls.new_block(20)  # an epoch, which gives the permit
    graph = json.dumps(person.read("subnets", "metagraph", "1"))
    assert hotkey in graph
    assert "8091" in graph
    person.send("tx", "set-weights", "--netuid", "1", "--uids", "0,1", "--weights", "1,3")
    rows = person.read("query", "weights", "--netuid", "1")
    assert "0.75" in json.dumps(rows)
    person.send("stake", "remove", "--netuid", "1", "--amount", "10", "--no-mev-shield")
    [position] = person.read("stake", "list")
    assert position["stake_amount"] == pytest.approx(1_991, abs=2)
    again = person.run("subnets", "register", "--netuid", "1", "-y")
    assert again.returncode != 0
    assert "registered" in (again.stdout + again.stderr).lower()


def test_an_unknown_call_ends_at_once(person):
    """btcli, which was seen to hang here, exits with the reason."""
    words = ("call", "Drand.set_oldest_stored_round", "--args", '{"oldest_round": 1}', "-y")
    done = person.run(*words)
    assert done.returncode != 0
    assert "not expected by the runtime" in done.stdout  # its own words for our refusal


def _tao(answer) -> float:
    if isinstance(answer, dict):
        answer = next(value for name, value in answer.items() if "tao" in name or "free" in name)
    return float(str(answer).replace("τ", "").replace(",", ""))
