"""Weights under everything that the devnet can let go wrong: at most one vector an epoch."""

from itertools import count

import pytest
from bittensor_core import Keypair
from fault_cases import CASES
from money_house import HASTE, RAO, send
from money_worker import NOW_US, VALIDATOR, Idle

from chutes_core.base.errors import ChutesError
from chutes_core.chain.client import ChainClient
from chutes_core.chain.intents import OutboxState
from chutes_core.devnet.launch import DevnetProcess
from chutes_core.validator.scoring.weights import Alarm, Skipped, WeightSetter
from chutes_core.validator.store.database import Store

ALWAYS = 10_000  # blocks before an epoch's end: weights are due at once


@pytest.fixture(scope="module")
def net():
    """A devnet that obeys, whose epochs follow one another; a thief of the hotkey could pay."""
    with DevnetProcess(block_seconds=0.2, tempo=20, dev_controls=True) as running:
        send(running.url, Keypair.create_from_uri(VALIDATOR).ss58_address, RAO)
        running.controls().new_block(3)
        yield running


@pytest.fixture
def controls(net):
    """The remote control; what a test began is ended."""
    remote = net.controls()
    yield remote
    remote.heal()


class Weigher:
    """A validator's weights over one store."""

    def __init__(self, net, folder, hotkey):
        self.hotkey = hotkey
        self.store = Store(folder / "v.sqlite")
        self.chain = ChainClient.connect(net.url, net.netuid, patience=HASTE)
        archive = f"{net.url}/archive"
        self.outbox = self.chain.use_outbox(self.store.outbox, archive_url=archive)
        self.setter = WeightSetter(
            *(self.chain, hotkey, self.store.epochs, Idle()), lead_blocks=ALWAYS
        )
        self.codes = set()

    def look(self):
        """Do one pass, as forgiving as the loop."""
        try:
            outcome = self.setter.run_once(NOW_US)
            self.outbox.resume(self.hotkey.ss58_address)
        except ChutesError as error:
            self.codes.add(error.code)
        else:
            if isinstance(outcome, (Alarm, Skipped)):
                self.codes.add(outcome.code)

    def finalized(self):
        """Return what of the outbox is final."""
        items = self.store.outbox.all()
        return [item for item in items if item.state is OutboxState.FINALIZED]

    def close(self):
        """Close chain and store."""
        self.chain.close()
        self.store.close()


@pytest.fixture
def weigher(net, tmp_path, key):
    """The first validator, with an empty memory."""
    made = Weigher(net, tmp_path, key(VALIDATOR))
    yield made
    made.close()


def settled(chain, controls):
    """Return the finalized block once all that was sent before is in it or below."""
    controls.new_block(3)
    sent = controls.best()
    while chain.finalized().number < sent:
        controls.new_block(1)
    return chain.finalized().number


@pytest.mark.parametrize("case", CASES, ids=str)
def test_weights_are_set_at_most_once_an_epoch_whatever_goes_wrong(weigher, controls, case):
    """While it lasts nothing is set twice; when it is over the next vector gets through."""
    first = settled(weigher.chain, controls) + 1
    case.begin(controls, weigher.hotkey.ss58_address)
    for number in range(4):
        if case.on == "rounds" and number % 2:
            controls.fault(case.kind, **case.options)
        weigher.look()
    assert not (case.stands and weigher.finalized())
    if not case.ends_by_itself:
        controls.heal()
    before = len(weigher.finalized())
    for number in count(1):
        assert number < 200, weigher.codes
        weigher.look()
        if len(weigher.finalized()) > before:
            break
        controls.new_block(70 if number % 4 == 0 and weigher.store.outbox.open() else 1)
    controls.heal()
    done = weigher.finalized()
    names = [item.intent_id for item in done]
    assert len(names) == len(set(names))
    blocks = range(first, weigher.chain.finalized().number + 1)
    hotkey = weigher.hotkey.ss58_address
    found = [weigher.chain.weights_receipt(hotkey, number) for number in blocks]
    on_chain = {receipt.extrinsic_hash for receipt in found if receipt is not None}
    assert on_chain == {item.extrinsic_hash for item in done}
    if case.foreign:
        assert weigher.outbox.alarms > 0
