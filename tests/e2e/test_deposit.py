"""A developer deposit and its refund over real processes: validator, signer, `chutes`, a wallet."""

import os
import signal
import subprocess
import sys

import pytest
from bittensor_core import Keypair

from chutes_core.base.errors import Unavailable
from chutes_core.base.units import RAO_PER_TAO
from chutes_core.chain.client import ChainClient
from scripts.chain_look import transfer
from scripts.localnet import DEPOSIT_TREASURY, ROOT, wait_until
from scripts.localuser import LocalUser


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
            process.wait(20)


def test_a_deposit_makes_a_developer_and_comes_back_once(lone_net, signer):
    """Killed at every turn, validator and signer still pay it back once, less the fee."""
    settings = {
        "REQUIRE_DEVELOPER_DEPOSIT": "true",
        "DEVELOPER_DEPOSIT": "2",
        "DEPOSIT_LOCK_S": "0",
        "SIGNER_SPOOL": str(lone_net.folder / "spool"),
        "SIGNER_UID": str(os.getuid()),
    }
    validator = lone_net.start_validator(1, extra=settings)
    user = LocalUser(lone_net, str(validator.ready["url"]), "dev")
    user.register()
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

    wait_until(lambda: ended() is not None, 60, "the refund")
    refund = ended()
    assert refund["refund_id"] == asked["refund_id"]
    with ChainClient.connect(lone_net.chain.url, 0) as chain:
        assert chain.balance_rao(user.coldkey.ss58_address) == before + refund["paid_rao"]
        left = chain.balance_rao(address)
    assert 500 <= left < 500 + refund["fee_rao"] // 50
    assert refund["paid_rao"] + refund["fee_rao"] + left == 2 * RAO_PER_TAO
    with pytest.raises(Unavailable, match="already_refunded"):
        user.chutes("refund", "--yes", "--to", user.coldkey.ss58_address)
