"""The weight setter with the real store and client on a devnet: from paid work to incentive."""

import time
from dataclasses import replace

import bittensor as bt
import pytest

from chutes_core.chain.client import ChainClient
from chutes_core.chain.extrinsics import submit
from chutes_core.chain.registration import register
from chutes_core.devnet.launch import DevnetProcess
from chutes_core.validator.scoring.evidence import recompute
from chutes_core.validator.scoring.score import DAY_US, GpuSpan, PaidWork, Work
from chutes_core.validator.scoring.weights import Alarm, Submitted, Waiting, WeightSetter
from chutes_core.validator.store.database import Store

NOW_US = 1_800_000_000_000_000


@pytest.fixture
def chain(request):
    """A devnet of its own, since epochs and parameters are changed; by default of short epochs."""
    tempo = getattr(request, "param", 20)
    with DevnetProcess(block_seconds=0.1, tempo=tempo, validators=1) as devnet:
        yield devnet


@pytest.fixture
def client(chain):
    """A client of it."""
    with ChainClient.connect(chain.url, chain.netuid) as connected:
        yield connected


@pytest.fixture
def store(tmp_path):
    """The validator's store."""
    opened = Store(tmp_path / "validator.db")
    yield opened
    opened.close()


class Source:
    """A miner that worked for a day."""

    def __init__(self, neuron):
        self.neuron = neuron

    def work(self, now_us, block, block_ms):
        """Return one span and one call."""
        miner = (self.neuron.hotkey, self.neuron.registered_at_block, self.neuron.coldkey)
        span = GpuSpan("l", *miner, "h100_sxm", 1, now_us - DAY_US, now_us)
        call = PaidWork("l", "user", "payer", DAY_US, 10**12)
        return Work(now_us, block, block_ms, 100_000_000, (span,), (call,))


def registered(client, key, name):
    """Register a miner and return its neuron."""
    hotkey = key(f"{name}//hotkey").ss58_address
    register(client, key(name), hotkey, None)
    return client.metagraph().by_hotkey(hotkey)


def run_until(setter, client, kind, **now):
    """Run the loop's one call until an outcome of a kind comes."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        outcome = setter.run_once(NOW_US)
        if isinstance(outcome, kind):
            return outcome
        assert isinstance(outcome, Waiting), outcome
        time.sleep(0.05)
    pytest.fail(f"no {kind.__name__} in time")


def sudo(client, key, call):
    """Change a parameter as the devnet's root."""

    async def build(substrate):
        inner = await substrate.compose(call)
        return await substrate.compose(bt.calls.Sudo.sudo(call=inner))

    return submit(client._connection, build, key("//Alice"), "sudo", hotkey_signed=False)


def test_paid_work_becomes_weights_and_incentive(client, key, store):
    """Weights of each epoch once; incentive on who worked, none on the idle third."""
    worker, idle = registered(client, key, "//Miner1"), registered(client, key, "//Miner2")
    setter = WeightSetter(client, key("//Validator1//hotkey"), store.epochs, Source(worker))
    first = run_until(setter, client, Submitted)
    assert first.weights == {worker.uid: 65_535}
    second = setter.run_once(NOW_US)
    if not isinstance(second, Submitted):  # else this machine has slept over the epoch's end
        assert second.reason in ("done", "early", "rate_limited")
        second = run_until(setter, client, Submitted)
    assert second.epoch > first.epoch
    assert store.epochs.last_submitted_epoch() == second.epoch
    kept = store.epochs.get(first.epoch)
    assert (kept.extrinsic_hash, kept.block_number, kept.block_hash) == (
        first.receipt.extrinsic_hash,
        first.receipt.block_number,
        first.receipt.block_hash,
    )
    assert recompute(store.epochs.evidence(first.epoch))
    metagraph = client.metagraph()
    assert metagraph.by_uid(worker.uid).incentive > 0
    assert metagraph.by_uid(idle.uid).incentive == 0


def test_a_twin_with_an_empty_store_does_not_send_again(client, key, store, tmp_path):
    """A validator that lost its store sees on chain that this epoch is done."""
    source = Source(registered(client, key, "//Miner1"))
    hotkey = key("//Validator1//hotkey")
    sent = run_until(WeightSetter(client, hotkey, store.epochs, source), client, Submitted)
    other = Store(tmp_path / "other" / "validator.db")
    twin = WeightSetter(client, hotkey, other.epochs, source, lead_blocks=10_000)
    outcome = twin.run_once(NOW_US)
    while isinstance(outcome, Waiting) and outcome.epoch == sent.epoch:
        assert outcome.reason == "done"
        outcome = twin.run_once(NOW_US)
    other.close()
    assert outcome.epoch > sent.epoch


@pytest.mark.parametrize("chain", [600], indirect=True, ids=["long"])  # its epoch must go on
def test_a_validator_that_died_after_sending_finds_its_extrinsic(client, key, store, monkeypatch):
    """The record of the epoch is completed from the chain, with the hash that was really sent."""

    class DiedError(Exception):
        """Stands for the end of the process."""

    hotkey = key("//Validator1//hotkey")
    source = Source(registered(client, key, "//Miner1"))
    setter = WeightSetter(client, hotkey, store.epochs, source, lead_blocks=10_000)

    def die(*_, **__):
        raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(type(store.epochs), "record_result", die)
        with pytest.raises(DiedError):
            run_until(setter, client, Submitted)
    assert store.epochs.last_submitted_epoch() is None
    again = WeightSetter(client, hotkey, store.epochs, source)
    assert again.run_once(NOW_US).reason == "done"
    epoch = store.epochs.last_submitted_epoch()
    kept = store.epochs.get(epoch)
    own = client.metagraph().by_hotkey(hotkey.ss58_address)
    assert kept.block_number == own.last_update
    assert client.weights_receipt(hotkey.ss58_address, own.last_update).extrinsic_hash == (
        kept.extrinsic_hash
    )
    assert client.weights_receipt(hotkey.ss58_address, own.last_update - 1) is None
    assert client.weights_receipt(hotkey.ss58_address, 10**6) is None


def test_a_commit_reveal_subnet_takes_a_timelocked_commit(client, key, store):
    """Where the subnet demands it, the vector goes out sealed, and counts as this epoch's."""
    worker = registered(client, key, "//Miner1")
    sudo(
        client,
        key,
        bt.calls.AdminUtils.sudo_set_commit_reveal_weights_enabled(
            netuid=client.netuid, enabled=True
        ),
    )
    assert client.subnet().commit_reveal
    hotkey = key("//Validator1//hotkey")
    outcome = run_until(
        WeightSetter(client, hotkey, store.epochs, Source(worker)), client, Submitted
    )
    own = client.metagraph().by_hotkey(hotkey.ss58_address)
    assert own.last_update == outcome.receipt.block_number


def test_a_newer_weights_version_on_chain_stops_the_setter(client, key, store):
    """Once the subnet asks for rules that this software lacks, nothing is sent."""
    sudo(
        client,
        key,
        bt.calls.AdminUtils.sudo_set_weights_version_key(
            netuid=client.netuid, weights_version_key=7
        ),
    )
    source = Source(replace(client.metagraph().by_uid(0), hotkey="nobody"))
    setter = WeightSetter(client, key("//Validator1//hotkey"), store.epochs, source)
    outcome = setter.run_once(NOW_US)
    assert isinstance(outcome, Alarm)
    assert outcome.code == "weights_version_newer"
    assert store.epochs.last_submitted_epoch() is None


def test_nothing_measured_burns(client, key, store):
    """Without work, all weight goes to the subnet owner's uid."""

    class Idle:
        def work(self, now_us, block, block_ms):
            return Work(now_us, block, block_ms, 100_000_000, (), ())

    setter = WeightSetter(client, key("//Validator1//hotkey"), store.epochs, Idle())
    outcome = run_until(setter, client, Submitted)
    owner = client.metagraph().by_hotkey(client.subnet().owner_hotkey)
    assert outcome.weights == {owner.uid: 65_535}


def test_a_padded_vector_passes_the_subnets_minimum(client, key, store):
    """Owner at weight one and idle uids at zero make up the count that the chain asks for."""
    worker, idle = registered(client, key, "//Miner1"), registered(client, key, "//Miner2")
    sudo(
        client,
        key,
        bt.calls.AdminUtils.sudo_set_min_allowed_weights(
            netuid=client.netuid, min_allowed_weights=3
        ),
    )
    setter = WeightSetter(client, key("//Validator1//hotkey"), store.epochs, Source(worker))
    outcome = run_until(setter, client, Submitted)
    owner = client.metagraph().by_hotkey(client.subnet().owner_hotkey)
    assert outcome.weights == {owner.uid: 1, worker.uid: 65_535, idle.uid: 0}
