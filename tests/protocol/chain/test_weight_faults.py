"""Weights survive the end of the process after any step: one vector an epoch, recorded."""

import time

import pytest

from chutes_core.chain.client import ChainClient
from chutes_core.chain.intents import OutboxState
from chutes_core.chain.outbox import STEPS
from chutes_core.devnet.launch import DevnetProcess
from chutes_core.validator.scoring.score import Work
from chutes_core.validator.scoring.weights import Submitted, Waiting, WeightSetter
from chutes_core.validator.store.database import Store

NOW_US = 1_800_000_000_000_000
STORED = ("record_intent", "record_result", "put_evidence")


class DiedError(BaseException):
    """Stands for the end of the process."""


class Idle:
    """Nothing was measured: the vector burns."""

    def work(self, now_us, block, block_ms):
        """Return no work."""
        return Work(now_us, block, block_ms, 100_000_000, (), ())


@pytest.fixture(scope="module")
def chain():
    """A devnet for this file, whose epochs follow one another."""
    with DevnetProcess(block_seconds=0.1, tempo=20, validators=1) as devnet:
        yield devnet


def run_until_sent(setter):
    """Look again and again until weights are set."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        outcome = setter.run_once(NOW_US)
        if isinstance(outcome, Submitted):
            return outcome
        assert isinstance(outcome, Waiting), outcome
        time.sleep(0.05)
    pytest.fail("no weights in time")


@pytest.mark.parametrize("step", [*STEPS, *STORED])
def test_weights_are_set_once_an_epoch_wherever_the_process_ends(
    chain, key, tmp_path, monkeypatch, step
):
    """After a restart the epoch's weights are found or finished, never sent a second time."""
    hotkey = key("//Validator1//hotkey")

    def reached(at):
        if at == step:
            raise DiedError

    def die(*_, **__):
        raise DiedError

    store = Store(tmp_path / "store.sqlite")
    with ChainClient.connect(chain.url, chain.netuid) as client, monkeypatch.context() as patch:
        client.use_outbox(store.outbox, reached=reached)
        if step in STORED:
            patch.setattr(type(store.epochs), step, die)
        with pytest.raises(DiedError):
            run_until_sent(WeightSetter(client, hotkey, store.epochs, Idle()))
    store.close()
    store = Store(tmp_path / "store.sqlite")
    with ChainClient.connect(chain.url, chain.netuid) as client:
        client.use_outbox(store.outbox)
        setter = WeightSetter(client, hotkey, store.epochs, Idle())
        sent = run_until_sent(setter)
        assert client.metagraph().by_hotkey(hotkey.ss58_address).last_update == (
            sent.receipt.block_number
        )
        items = store.outbox.all()
        ids = [item.intent_id for item in items if item.state is OutboxState.FINALIZED]
        assert len(ids) == len(set(ids))
        assert f"weights:{client.netuid}:{sent.epoch}" in ids
        assert not [item for item in items if item.state is OutboxState.SIGNED]
        for item in items:
            epoch = int(item.intent_id.rpartition(":")[2])
            assert store.epochs.get(epoch) is not None
    store.close()
