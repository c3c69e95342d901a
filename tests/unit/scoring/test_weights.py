"""The weight setter: once an epoch, intent first, never twice in a rate window."""

from dataclasses import replace

import pytest

from chutes_core.base.errors import ChainError, Conflict, Exhausted, Unavailable
from chutes_core.chain.extrinsics import Receipt
from chutes_core.chain.metagraph import Metagraph, Neuron
from chutes_core.chain.subnet import Subnet
from chutes_core.validator.scoring.evidence import recompute
from chutes_core.validator.scoring.score import DAY_US, GpuSpan, PaidWork, Work
from chutes_core.validator.scoring.weights import (
    Alarm,
    Skipped,
    Submitted,
    Waiting,
    WeightSetter,
)

OWNER, OWN, MINER = range(3)
NOW_US = 100 * DAY_US
SUBNET = Subnet(
    netuid=1,
    block=115,
    tempo=20,
    weights_rate_limit=5,
    min_allowed_weights=1,
    max_weight_limit=65_535,
    commit_reveal=False,
    weights_version=1,
    owner_hotkey="owner",
    last_epoch_block=100,
    next_epoch_block=120,
    block_ms=1_000,
    immunity_period=10,
    max_uids=256,
    neuron_count=3,
    registration_allowed=True,
    burn_rao=1,
)


class Hotkey:
    """Has an address and signs nothing."""

    ss58_address = "own"


class Chain:
    """A chain at one moment; remembers what was sent, in the trace that the store writes too."""

    def __init__(self, trace):
        self.trace = trace
        self.now = SUBNET
        self.last_update = 90
        self.registered_at = 1
        self.failure = None
        self.looked = []

    def weights_receipt(self, hotkey_ss58, block_number):
        """Return the receipt of weights found in a block."""
        self.looked.append(block_number)
        return Receipt("0xfound", block_number, "0xblock")

    def subnet(self):
        """Return the parameters."""
        return self.now

    def metagraph(self):
        """Return owner, validator and one miner."""
        return Metagraph(
            self.now.block,
            (
                Neuron(OWNER, "owner", "c0", 0, False, 0, None, None, 0, 0),
                Neuron(
                    OWN, "own", "c1", 9, True, self.registered_at, None, None, 0, self.last_update
                ),
                Neuron(MINER, "miner", "c2", 0, False, 7, None, None, 0, 0),
            ),
        )

    def set_weights(self, hotkey, weights, version_key, *, intent_id=None):
        """Take the vector, or fail as told."""
        self.trace.append(("sent", dict(weights), version_key))
        if self.failure is not None:
            raise self.failure
        self.last_update = self.now.block
        return Receipt("0xextrinsic", self.now.block, "0xblock")


class Store:
    """An epoch store that survives the setter."""

    def __init__(self, trace):
        self.trace = trace
        self.submitted = None
        self.evidence = {}

    def last_submitted_epoch(self):
        """Return the last epoch with a result."""
        return self.submitted

    def record_intent(self, epoch, weights, *, at_s):
        """Note the intent."""
        self.trace.append(("intent", epoch, dict(weights)))

    def record_result(self, epoch, *, extrinsic_hash, block_number, block_hash):
        """Note the result, where there is an intent."""
        if not any(step[:2] == ("intent", epoch) for step in self.trace):
            raise Conflict("no_intent", "no weights were meant")
        self.trace.append(("result", epoch, extrinsic_hash, block_number))
        self.submitted = epoch

    def record_failure(self, epoch, *, error):
        """Note the failure."""
        self.trace.append(("failure", epoch, error))

    def put_evidence(self, epoch, evidence):
        """Keep the record."""
        self.evidence[epoch] = evidence


class Source:
    """One miner that worked."""

    gpu_class = "l4"

    def work(self, now_us, block, block_ms):
        """Return a day of paid work."""
        span = GpuSpan("l", "miner", 7, "c2", self.gpu_class, 1, now_us - DAY_US, now_us)
        call = PaidWork("l", "user", "payer", DAY_US, 10**12)
        return Work(now_us, block, block_ms, 100_000_000, (span,), (call,))


@pytest.fixture
def trace():
    """What chain and store saw, in order."""
    return []


@pytest.fixture
def chain(trace):
    """The chain."""
    return Chain(trace)


@pytest.fixture
def store(trace):
    """The store."""
    return Store(trace)


@pytest.fixture
def setter(chain, store):
    """A setter near the end of an epoch."""
    return WeightSetter(chain, Hotkey(), store, Source())


def test_intent_is_stored_before_the_vector_is_sent(setter, trace):
    """Intent, extrinsic, result: in this order, with the chain's version key."""
    outcome = setter.run_once(NOW_US)
    assert isinstance(outcome, Submitted)
    assert trace == [
        ("intent", 100, {MINER: 65_535}),
        ("sent", {MINER: 65_535}, 1),
        ("result", 100, "0xextrinsic", 115),
    ]


def test_evidence_of_the_epoch_is_kept_and_holds(setter, store):
    """The stored record is the one of the outcome, and its scores follow from its inputs."""
    outcome = setter.run_once(NOW_US)
    assert store.evidence == {100: outcome.evidence.text}
    assert recompute(store.evidence[100])


def test_an_epoch_is_done_once(setter, trace):
    """A second look in the same epoch sends nothing."""
    setter.run_once(NOW_US)
    assert setter.run_once(NOW_US) == Waiting(100, "done", 5)
    assert [step[0] for step in trace].count("sent") == 1


def test_after_a_restart_the_chain_is_asked(chain, store, trace):
    """Sent, and died before the result was stored: the new process sees the chain's update."""
    chain.last_update = 112
    store.record_intent(100, {MINER: 65_535}, at_s=0)
    restarted = WeightSetter(chain, Hotkey(), store, Source())
    assert restarted.run_once(NOW_US) == Waiting(100, "done", 5)
    assert trace[1:] == [("result", 100, "0xfound", 112)]
    assert restarted.run_once(NOW_US) == Waiting(100, "done", 5)
    assert len(trace) == 2


def test_weights_of_a_twin_are_not_ours_to_record(chain, store, trace):
    """Without an intent of its own, the setter waits and asks the chain's block only once."""
    chain.last_update = 112
    setter = WeightSetter(chain, Hotkey(), store, Source())
    assert setter.run_once(NOW_US) == setter.run_once(NOW_US) == Waiting(100, "done", 5)
    assert trace == []
    assert chain.looked == [112]


def test_a_node_that_forgot_the_block_leaves_the_epoch_done(chain, store, trace, monkeypatch):
    """Where the node has discarded the block, the record stays without a hash, and no more."""

    def forgotten(hotkey_ss58, block_number):
        raise ChainError("chain", "State discarded")

    chain.last_update = 112
    store.record_intent(100, {MINER: 65_535}, at_s=0)
    monkeypatch.setattr(chain, "weights_receipt", forgotten)
    setter = WeightSetter(chain, Hotkey(), store, Source())
    assert setter.run_once(NOW_US) == Waiting(100, "done", 5)
    assert len(trace) == 1


def test_a_restart_before_sending_sends(chain, store, trace):
    """An intent whose extrinsic never left is sent by the next process."""
    store.record_intent(100, {MINER: 1}, at_s=0)
    assert isinstance(WeightSetter(chain, Hotkey(), store, Source()).run_once(NOW_US), Submitted)


def test_registering_is_no_weights_of_this_epoch(setter, chain):
    """A hotkey registered in this epoch has set no weights yet, though the chain dates it."""
    chain.last_update = chain.registered_at = 105
    assert isinstance(setter.run_once(NOW_US), Submitted)


def test_weights_are_sent_late_in_the_epoch(setter, chain, trace):
    """Early on it waits, so that the vector counts the epoch's work."""
    chain.now = replace(SUBNET, block=103)
    assert setter.run_once(NOW_US) == Waiting(100, "early", 7)
    assert trace == []


def test_the_rate_limit_is_kept(setter, chain, trace):
    """Inside the subnet's rate window nothing is sent, even in a new epoch."""
    chain.last_update = 99
    chain.now = replace(SUBNET, weights_rate_limit=30)
    assert setter.run_once(NOW_US) == Waiting(100, "rate_limited", 14)
    assert trace == []


def test_a_newer_weights_version_stops_with_an_alarm(setter, chain, trace):
    """Weights by rules that this software does not know are not sent."""
    chain.now = replace(SUBNET, weights_version=2)
    outcome = setter.run_once(NOW_US)
    assert isinstance(outcome, Alarm)
    assert outcome.code == "weights_version_newer"
    assert trace == []


def test_an_unregistered_validator_raises_an_alarm(setter, chain):
    """Without a uid there is nothing to set."""
    setter._hotkey = type("Other", (), {"ss58_address": "stranger"})()
    outcome = setter.run_once(NOW_US)
    assert isinstance(outcome, Alarm)
    assert outcome.code == "not_registered"


def test_an_empty_coldkey_is_an_alarm_and_is_remembered(setter, chain, trace):
    """The reason is stored, and the epoch is tried again later."""
    chain.failure = ChainError("coldkey_cannot_pay", "empty", hint="send TAO")
    outcome = setter.run_once(NOW_US)
    assert isinstance(outcome, Alarm)
    assert (outcome.code, outcome.hint) == ("coldkey_cannot_pay", "send TAO")
    assert trace[-1] == ("failure", 100, "coldkey_cannot_pay: empty")
    chain.failure = None
    assert isinstance(setter.run_once(NOW_US), Submitted)


def test_a_lost_node_is_skipped_until_next_time(setter, chain):
    """Unknown fate is no alarm: the next look asks the chain."""
    chain.failure = Unavailable("extrinsic_in_flight", "wait")
    outcome = setter.run_once(NOW_US)
    assert isinstance(outcome, Skipped)
    assert outcome.code == "extrinsic_in_flight"


def test_the_chains_own_rate_limit_is_a_wait(setter, chain):
    """What the client found to be too early is waited for."""
    chain.failure = Exhausted("weights_rate_limited", "wait", blocks=3)
    assert setter.run_once(NOW_US) == Waiting(100, "rate_limited", 3)


def test_damaged_records_send_nothing(chain, store, trace):
    """Records that cannot be scored are an alarm before any intent."""
    source = Source()
    source.gpu_class = "abacus"
    outcome = WeightSetter(chain, Hotkey(), store, source).run_once(NOW_US)
    assert isinstance(outcome, Alarm)
    assert outcome.code == "unknown_gpu_class"
    assert trace == []
