"""The miner neuron as an operator starts it: its own process, a real chain, a signed validator."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import bittensor as bt
import pytest
from bittensor_core import Keypair

from chutes_core.base.errors import Forbidden
from chutes_core.chain.client import ChainClient
from chutes_core.chain.registration import register
from chutes_core.devnet.launch import DevnetProcess
from chutes_core.devnet.metadata import DEFAULT_METADATA
from chutes_core.wire.control import Inventory
from chutes_core.wire.discovery import commitment_of
from chutes_core.wire.peers import SignedClient

ROOT = Path(__file__).resolve().parents[3]
NEURON = ROOT / "neurons" / "miner.py"
VALIDATOR = Keypair.create_from_uri("//Validator1//hotkey")
OWNER = Keypair.create_from_uri("//Owner//hotkey")
WAIT_S = 60

pytestmark = pytest.mark.skipif(
    not DEFAULT_METADATA.is_file(), reason="python scripts/fetch_metadata.py brings the metadata"
)


@pytest.fixture(scope="module")
def devnet():
    with DevnetProcess(block_seconds=0.25, tempo=20) as running:
        yield running


@pytest.fixture(scope="module")
def chain(devnet):
    with ChainClient.connect(devnet.url, devnet.netuid) as client:
        yield client


@pytest.fixture
def wallet(tmp_path):
    """A neuron's wallet: hotkey and coldkeypub, no coldkey."""
    made = bt.Wallet("w", "h", str(tmp_path / "wallets"))
    made.create_new_coldkey(use_password=False, suppress=True)
    made.create_new_hotkey(suppress=True)
    os.unlink(tmp_path / "wallets" / "w" / "coldkey")
    return made


class Neuron:
    """One miner process with stdin closed; its log is a file."""

    def __init__(self, tmp_path, url, netuid, *options):
        self.ready_file = tmp_path / "ready.json"
        self.ready_file.unlink(missing_ok=True)
        self.log = tmp_path / "miner.log"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CHUTES_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, str(NEURON), "--json-logs", "--poll-seconds", "0.5"),
                    *("--wallet-path", str(tmp_path / "wallets"), "--wallet-name", "w"),
                    *("--hotkey", "h", "--chain-url", url, "--netuid", str(netuid)),
                    *("--data-dir", str(tmp_path / "data"), "--host", "127.0.0.1"),
                    *("--port", "0", "--relay-port", "0", "--runtime", "process"),
                    *("--ready-file", str(self.ready_file), *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
            )

    async def ready(self):
        await until(lambda: self.ready_file.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()
        return json.loads(self.ready_file.read_text())

    async def end(self, number=signal.SIGTERM, within_s=WAIT_S):
        if self.process.poll() is None:
            self.process.send_signal(number)
        await until(lambda: self.process.poll() is not None, within_s)
        return self.process.returncode

    def codes(self):
        lines = [json.loads(line)["record"] for line in self.log.read_text().splitlines()]
        return {line["extra"]["code"]: line["message"] for line in lines if "code" in line["extra"]}


def is_alive(pid):
    """A zombie that nobody collects is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(condition, timeout_s=WAIT_S):
    """Other processes give no event to wait for: look until it is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@pytest.fixture
async def start(tmp_path, devnet):
    neurons = []

    def begin(*options, url=devnet.url, netuid=devnet.netuid):
        neurons.append(Neuron(tmp_path, url, netuid, *options))
        return neurons[-1]

    yield begin
    for neuron in neurons:
        await neuron.end()


async def test_an_unregistered_hotkey_is_told_how_to_register(start, wallet):
    """The miner ends with code 2 and the command to run where the coldkey is."""
    neuron = start("--declare-gpu", "h100_sxm:1")
    assert await neuron.end(signal.SIGCONT) == 2
    assert "scripts/register.py" in neuron.codes()["not_registered"]
    assert wallet.hotkey.ss58_address in neuron.codes()["not_registered"]


async def test_waiting_for_registration_ends_on_sigterm(start, wallet):
    """With --wait-registered it waits, says so once, and still ends cleanly."""
    neuron = start("--wait-registered")
    await until(lambda: "waiting for registration" in neuron.log.read_text())
    assert await neuron.end(within_s=WAIT_S) == 0


async def test_devnet_things_are_refused_on_another_chain(start, wallet):
    """On a chain whose genesis is no devnet's the process runtime and stand-ins are refused."""
    with DevnetProcess(block_seconds=0.25, tempo=20, foreign_genesis=True) as foreign:
        neuron = start("--declare-gpu", "h100_sxm:1", url=foreign.url, netuid=foreign.netuid)
        assert await neuron.end(signal.SIGCONT) == 2
    assert "devnet" in neuron.codes()["devnet_only"]


async def test_a_coldkey_beside_the_hotkey_is_refused(start, wallet, tmp_path):
    """With a coldkey on disk the miner does not start."""
    (tmp_path / "wallets" / "w" / "coldkey").write_text("{}")
    neuron = start()
    assert await neuron.end(signal.SIGCONT) == 2
    assert "coldkey_present" in neuron.codes()


async def test_a_miner_lives_dies_and_lives_on(
    start, wallet, tmp_path, chain, serve_validator, make_validator
):
    """It announces, leases, launches, survives kill -9 with its instance, and ends on SIGTERM."""
    validator = await serve_validator(
        make_validator(genesis_hash=chain.genesis_hash, netuid=chain.netuid, key=VALIDATOR)
    )
    await asyncio.to_thread(_prepare_chain, chain, wallet, validator)
    hotkey = wallet.hotkey.ss58_address
    validator.want(missing=1)
    neuron = start("--declare-gpu", "h100_sxm:1", "--lease-blocks", "400")
    ready = await neuron.ready()
    await validator.until(lambda: validator.events_of("listening"), WAIT_S)

    launch_id, event = validator.events_of("listening")[0]
    assert len(bytes.fromhex(event.instance_public_key)) == 32
    own = (await asyncio.to_thread(chain.metagraph)).by_hotkey(hotkey)
    assert (own.axon_ip, own.axon_port) == ("127.0.0.1", ready["port"])
    lease = validator.requests[0][1].leases[0]
    lease.check_signature()
    assert (lease.validator_hotkey, lease.miner_hotkey) == (validator.hotkey, hotkey)

    inventory = await _inventory(VALIDATOR, ready, hotkey)
    assert inventory.gpus[0].launch_id == launch_id
    assert lease in inventory.leases
    with pytest.raises(Forbidden) as refused:
        await _inventory(OWNER, ready, hotkey)
    assert refused.value.code in ("no_permit", "not_registered")

    instance = tmp_path / "data" / "instances" / launch_id
    shim = json.loads((instance / "pid.json").read_text())["pid"]
    assert await neuron.end(signal.SIGKILL) == -signal.SIGKILL
    neuron = start("--declare-gpu", "h100_sxm:1", "--lease-blocks", "400")
    again = await neuron.ready()
    assert (again["port"], again["relay_port"]) == (ready["port"], ready["relay_port"])
    inventory = await _inventory(VALIDATOR, again, hotkey)
    assert inventory.gpus[0].launch_id == launch_id
    assert json.loads((instance / "pid.json").read_text())["pid"] == shim
    overlapping = [
        (a, b) for a in inventory.leases for b in inventory.leases if a.conflicts_with(b)
    ]
    assert overlapping == []

    asked = validator.asked
    await validator.until(lambda: validator.asked > asked, WAIT_S)  # it has found its validator
    assert await neuron.end() == 0
    assert validator.events_of("gone")[-1][0] == launch_id
    assert validator.events_of("gone")[-1][1].reason == "miner_ended"
    assert not is_alive(shim)
    assert not instance.exists()
    with socket.create_server(("127.0.0.1", ready["port"])):
        pass  # its port is free again


def _prepare_chain(chain, wallet, validator):
    payer = Keypair.create_from_uri("//Miner1")
    register(chain, payer, wallet.hotkey.ss58_address, None)
    chain.set_commitment(VALIDATOR, commitment_of(validator.url))


async def _inventory(caller, ready, hotkey):
    async with SignedClient(caller) as client:
        url = f"http://{ready['axon']}"
        return await client.call("GET", url, "/inventory", Inventory, peer_hotkey_ss58=hotkey)
