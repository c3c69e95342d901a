"""What may not happen: wrong proofs, foreign chains, coldkeys on hosts. Each with its reason."""

import os
import subprocess
import sys
import uuid

import pytest

from chutes_core.base.errors import Forbidden, Unavailable
from chutes_core.wire.control import WantedChute
from scripts.localnet import ROOT, Localnet, miner_coldkey, miner_hotkey, wait_until, write_wallet
from tests.e2e.patience import PATIENCE_S
from tests.e2e.people import rich_user
from tests.e2e.signed import known_to, launches_of, lease, request_launch, wanted_of

DISHONEST = ROOT / "tests" / "e2e" / "dishonest_prover.py"


def fake_interpreter(folder, mode):
    """Write an executable that stands in for graval's Python and runs a dishonest prover."""
    script = folder / f"python-{mode}"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{DISHONEST}" {mode} "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("number", "mode", "reason"),
    [(1, "flip", "proof_wrong"), (2, "other", "proof_wrong"), (3, "late", "proof_late")],
)
def test_a_dishonest_prover_never_serves(dishonest, number, mode, reason):
    """A flipped byte, the answer to another challenge, a late answer: gone, with the reason."""
    user, validator = dishonest
    keypair = miner_hotkey(number)

    def ended():
        launches = launches_of(keypair, user.url, str(validator.ready["hotkey"]))
        assert all(launch.state != "active" for launch in launches)
        return [launch for launch in launches if launch.state == "gone"]

    wait_until(lambda: bool(ended()), PATIENCE_S, f"the verdict on {mode}")
    launch = ended()[0]
    assert launch.reason == reason
    assert launch.detail
    verdicts = [v for v in user.get("/verdicts")["items"] if v["launch_id"] == launch.launch_id]
    assert verdicts
    assert not any(verdict["accepted"] for verdict in verdicts)
    item = user.get("/chutes/echo")
    assert not any(instance["active"] for instance in item["instances"])


@pytest.fixture(scope="module")
def dishonest(tmp_path_factory):
    """One validator and three miners, each with another way to cheat."""
    folder = tmp_path_factory.mktemp("dishonest")
    with Localnet(folder, block_seconds=0.5, tempo=40) as net:
        validator = net.start_validator(1)
        for number, mode in ((1, "flip"), (2, "other"), (3, "late")):
            net.register_miner(number)
            net.start_miner(number, extra={"GPU_PYTHON": fake_interpreter(folder, mode)})
        user = rich_user(net, str(validator.ready["url"]))
        user.deploy("echo")
        # One wanted instance would go to the first miner alone: two more chutes, one for each.
        user.deploy("stream")
        user.deploy("embeddings")
        yield user, validator


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A chain whose genesis is not a devnet's: nothing that only tests may use is accepted."""
    folder = tmp_path_factory.mktemp("foreign")
    with Localnet(folder, block_seconds=0.5, tempo=40, foreign_genesis=True) as net:
        yield net


@pytest.mark.parametrize(
    "settings",
    [
        {"RUNTIME": "process", "PROFILE": "admission"},
        {"RUNTIME": "docker", "PROFILE": "test"},
    ],
)
def test_a_validator_refuses_test_settings(foreign, settings):
    """Process runtime and test proofs: exit 2, code devnet_only."""
    with pytest.raises(Unavailable) as caught:
        foreign.start_validator(1, extra=settings)
    assert "devnet_only" in caught.value.message
    assert "validator-1 ended" in caught.value.message


def test_a_miner_refuses_stand_in_gpus(foreign):
    """Declared GPUs and the process runtime: the miner does not start."""
    foreign.register_miner(1)
    with pytest.raises(Unavailable) as caught:
        foreign.start_miner(1)
    assert "devnet_only" in caught.value.message


def test_a_validator_grants_no_launch_to_a_stand_in(foreign):
    """A request by hand for a stand-in GPU is answered with test_proof_refused."""
    validator = foreign.start_validator(1, extra={"RUNTIME": "docker", "PROFILE": "periodic"})
    url, hotkey = str(validator.ready["url"]), str(validator.ready["hotkey"])
    foreign.register_miner(2)
    keypair = miner_hotkey(2)
    wait_until(lambda: known_to(keypair, url, hotkey), PATIENCE_S, "the registration to be read")
    mine = lease(keypair, "GPU-1", hotkey, wanted_of(keypair, url, hotkey).block)
    anything = WantedChute(
        chute_id=str(uuid.uuid4()),
        version=str(uuid.uuid4()),
        image_id=str(uuid.uuid4()),
        gpu_count=1,
        gpu_classes=("h100_sxm",),
        rao_per_hour=1,
        missing=1,
    )
    with pytest.raises(Forbidden) as caught:
        request_launch(keypair, url, hotkey, anything, "GPU-1", [mine])
    assert caught.value.code == "test_proof_refused"


@pytest.mark.parametrize("role", ["miner", "validator"])
def test_a_coldkey_beside_the_hotkey_stops_the_start(tmp_path, role):
    """With stdin closed: exit 2, code coldkey_present, no question asked."""
    write_wallet(tmp_path, "w", miner_coldkey(1), miner_hotkey(1), with_coldkey=True)
    prefix = f"CHUTES_{role.upper()}_"
    treasury = miner_coldkey(1).ss58_address
    environ = {
        **os.environ,
        f"{prefix}WALLET_PATH": str(tmp_path),
        f"{prefix}WALLET_NAME": "w",
        f"{prefix}DATA_DIR": str(tmp_path / "data"),
        f"{prefix}CHAIN_URL": "ws://127.0.0.1:1",
        f"{prefix}RUNTIME": "process",
        "CHUTES_VALIDATOR_PAYMENT_TREASURY": treasury,
        "CHUTES_VALIDATOR_DEPOSIT_TREASURY": treasury,
    }
    command = f'exec "{sys.executable}" "{ROOT}/neurons/{role}.py" <&-'
    done = subprocess.run(
        ["sh", "-c", command], env=environ, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 2
    assert "coldkey_present" in done.stderr
