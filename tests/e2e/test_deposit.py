"""A developer deposit and its refund over real processes: validator, signer, `chutes`, a wallet.

Once by `chutes` alone while processes are killed, once by hand as docs/deposits.md says.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from bittensor_core import Keypair

from chutes_core.base.errors import Unavailable
from chutes_core.base.units import RAO_PER_TAO
from chutes_core.chain.client import ChainClient
from scripts.chain_look import transfer
from scripts.localnet import DEPOSIT_TREASURY, ROOT, wait_until
from scripts.localuser import LocalUser
from tests.e2e.patience import CALL_S, PATIENCE_S

BY_HAND = "## By hand, with btcli as the wallet"


@pytest.fixture
def signer(lone_net):
    """Start the signer, with its key file and its folder; can be killed and started again."""
    home = lone_net.folder / "signer"
    home.mkdir()
    key_file = home / "treasury.key"
    key_file.touch(mode=0o600)
    key_file.write_text(DEPOSIT_TREASURY)
    running = []

    def start():
        environ = {
            **os.environ,
            "CHUTES_SIGNER_CHAIN_URL": lone_net.chain.url,
            "CHUTES_SIGNER_SPOOL": str(lone_net.folder / "spool"),
            "CHUTES_SIGNER_VALIDATOR_UID": str(os.getuid()),
            "CHUTES_SIGNER_KEY_FILE": str(key_file),
            "CHUTES_SIGNER_DATA_DIR": str(home / "data"),
            "CHUTES_SIGNER_DAILY_CAP": "10",
            "CHUTES_SIGNER_POLL_SECONDS": "0.3",
        }
        with (home / "signer.log").open("ab") as log:
            command = [sys.executable, "-m", "chutes_core.validator.signer"]
            running.append(subprocess.Popen(command, env=environ, cwd=ROOT, stdout=log, stderr=log))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)


def terms(net):
    """Return a validator's settings: two TAO, no lock, the signer's folder."""
    return {
        "REQUIRE_DEVELOPER_DEPOSIT": "true",
        "DEVELOPER_DEPOSIT": "2",
        "DEPOSIT_LOCK_S": "0",
        "SIGNER_SPOOL": str(net.folder / "spool"),
        "SIGNER_UID": str(os.getuid()),
    }


def test_a_deposit_makes_a_developer_and_comes_back_once(lone_net, signer):
    """Killed at every turn, validator and signer still pay it back once, less the fee."""
    settings = terms(lone_net)
    validator = lone_net.start_validator(1, extra=settings)
    user = LocalUser(lone_net, str(validator.ready["url"]), "dev")
    user.register()

    def health():
        return httpx.get(f"{user.url}/health", timeout=CALL_S).json()

    both = {"payments_block", "coldkey_free_rao"}  # each is another loop's
    wait_until(lambda: both <= health()["figures"].keys(), PATIENCE_S, "the first looks")
    assert health()["figures"]["payments_block"] > 0
    assert health()["figures"]["coldkey_free_rao"] > RAO_PER_TAO
    metrics = httpx.get(f"{user.url}/health/metrics", timeout=CALL_S)
    assert "chutes_validator_coldkey_free_rao " in metrics.text
    me = user.chutes("balance")
    assert me["permissions"] == []
    address = user.chutes("deposit")["deposit_address"]
    bob = Keypair.create_from_uri("//Bob")
    transfer(lone_net.chain.url, bob, user.coldkey.ss58_address, 3 * RAO_PER_TAO)
    purse = ("--network", lone_net.chain.url, *user.wallet, "--yes")
    sent = user.chutes("deposit", "--send", *purse)
    assert sent["held_rao"] == 2 * RAO_PER_TAO
    assert (sent["sent"]["tao"], sent["sent"]["state"]) == ("2.000000000", "held")
    assert sent["sent"]["unlocks_at"] == sent["sent"]["at"]  # the lock of this test is 0 s
    with pytest.raises(Unavailable, match="nothing_missing"):
        user.chutes("deposit", "--send", *purse)
    with pytest.raises(Unavailable, match="insufficient_balance"):
        user.chutes("deposit", "--send", "5000", *purse)
    with ChainClient.connect(lone_net.chain.url, 0) as chain:
        before = chain.balance_rao(user.coldkey.ss58_address)
    assert user.chutes("balance")["permissions"] == ["developer"]
    with pytest.raises(Unavailable, match="coldkey_not_proven"):
        user.chutes("refund", "--yes")
    first = signer()
    asked = user.chutes("refund", "--yes", "--to", user.coldkey.ss58_address)
    assert user.chutes("balance")["permissions"] == []
    first.kill()
    first.wait()
    validator.kill()
    validator = lone_net.start_validator(1, extra=settings)
    user.url = str(validator.ready["url"])
    signer()

    def ended():
        (refund,) = user.chutes("refund", "--list")
        return refund if refund["state"] == "finalized" else None

    wait_until(lambda: ended() is not None, PATIENCE_S, "the refund")
    refund = ended()
    assert refund["refund_id"] == asked["refund_id"]
    with ChainClient.connect(lone_net.chain.url, 0) as chain:
        assert chain.balance_rao(user.coldkey.ss58_address) == before + refund["paid_rao"]
        left = chain.balance_rao(address)
    assert 500 <= left < 500 + refund["fee_rao"] // 50
    assert refund["paid_rao"] + refund["fee_rao"] + left == 2 * RAO_PER_TAO
    with pytest.raises(Unavailable, match="already_refunded"):
        user.chutes("refund", "--yes", "--to", user.coldkey.ss58_address)


def commands_of(page, heading):
    """Return the lines of the first code block under a heading of a page."""
    text = (ROOT / page).read_text("utf-8")
    block = text.partition(f"\n{heading}\n")[2].partition("```sh\n")[2].partition("```")[0]
    lines = block.strip().splitlines()
    assert lines, f"{page} has no commands under {heading}"
    return lines


class Walker:
    """Somebody at a terminal who types what a page says, and copies what was printed before."""

    def __init__(self, net, user):
        folder = net.folder / "btcli"
        self._environ = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "NO_COLOR": "1",
            "COLUMNS": "400",
            "CHUTES_API_URL": user.url,
            "CHUTES_CONFIG_PATH": str(net.folder / f"user-{user.username}" / "config.ini"),
            "BT_NETWORK": net.chain.url,
            "BT_FALLBACK_ENDPOINTS": "none",
            "BT_ARCHIVE_ENDPOINTS": "none",
            "BT_WALLET_PATH": user.wallet[1],
            "BT_WALLET": user.username,
        }
        self.copied = {}

    def type(self, line):
        """Run one line of the page; whoever is asked says yes."""
        for name, value in self.copied.items():
            line = re.sub(rf"\b{name}\b", value, line)
        yes = " -y" if re.match(r"chutes refund|btcli wallet transfer", line) else ""
        done = subprocess.run(
            ["bash", "-c", line + yes],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        self._copy(done.stdout)
        return done.stdout

    def _copy(self, out):
        patterns = {
            "ADDRESS": r"^(5[1-9A-HJ-NP-Za-km-z]{47})$",
            "TEXT": r"(chutes-coldkey/1\|\S+)",
            "EXPIRY": r"--expiry (\d+)",
            "SIGNATURE": r"\b(?:0x)?([0-9a-f]{128})\b",
        }
        for name, pattern in patterns.items():
            if found := re.search(pattern, out, re.MULTILINE):
                self.copied[name] = found.group(1)


@pytest.mark.skipif(
    not Path(sys.executable).with_name("btcli").is_file(), reason="btcli is not beside this Python"
)
def test_by_hand_with_btcli_word_for_word(lone_net, signer):
    """Every command of the page works as it is printed, and the money is back in the wallet."""
    validator = lone_net.start_validator(1, extra=terms(lone_net))
    user = LocalUser(lone_net, str(validator.ready["url"]), "hand")
    user.register()
    bob = Keypair.create_from_uri("//Bob")
    transfer(lone_net.chain.url, bob, user.coldkey.ss58_address, 3 * RAO_PER_TAO)
    signer()
    walker = Walker(lone_net, user)
    said = [walker.type(line) for line in commands_of("docs/deposits.md", BY_HAND)]
    (refund,) = user.chutes("refund", "--list")
    assert refund["state"] == "finalized"
    assert refund["address"] == user.coldkey.ss58_address
    with ChainClient.connect(lone_net.chain.url, 0) as chain:
        free = chain.balance_rao(user.coldkey.ss58_address)
    assert 3 * RAO_PER_TAO - RAO_PER_TAO // 100 < free < 3 * RAO_PER_TAO
    assert f"{free / RAO_PER_TAO:.3f}" in said[-1]  # btcli rounds
