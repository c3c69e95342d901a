"""The wired miner over a chain that a test controls, with a validator on a real socket."""

import asyncio
import os
import signal
from dataclasses import dataclass, field, replace

import bittensor as bt
import pytest
from bittensor_core import Keypair

from chutes_core.base.errors import ChutesError, Forbidden, Unavailable
from chutes_core.miner.app import run
from chutes_core.miner.settings import MinerSettings
from chutes_core.wire.discovery import commitment_of

WAIT_S = 90


@dataclass(frozen=True)
class Neuron:
    hotkey: str
    stake_rao: int = 1000
    validator_permit: bool = False
    axon_ip: str | None = None
    axon_port: int | None = None
    incentive: int = 0


@dataclass(frozen=True)
class Metagraph:
    neurons: tuple
    block: int

    def by_hotkey(self, hotkey_ss58):
        return next((n for n in self.neurons if n.hotkey == hotkey_ss58), None)

    def validators(self):
        return tuple(n for n in self.neurons if n.validator_permit)


@dataclass
class FakeChain:
    """A chain in memory; `down` makes every read fail."""

    neurons: dict = field(default_factory=dict)
    texts: dict = field(default_factory=dict)
    genesis_hash: str = "0xgenesis"
    is_devnet: bool = True
    netuid: int = 3
    block: int = 50
    down: bool = False
    reads: int = 0
    closed: bool = False

    def metagraph(self):
        self.reads += 1
        if self.down:
            raise Unavailable("chain_unreachable", "no node answers")
        return Metagraph(tuple(self.neurons.values()), self.block)

    def commitments(self):
        return dict(self.texts)

    def serve_axon(self, hotkey, ip, port):
        own = self.neurons[hotkey.ss58_address]
        self.neurons[own.hotkey] = replace(own, axon_ip=ip, axon_port=port)

    def close(self):
        self.closed = True


@pytest.fixture
def wallet(tmp_path):
    made = bt.Wallet("w", "h", str(tmp_path / "wallets"))
    made.create_new_coldkey(use_password=False, suppress=True)
    made.create_new_hotkey(suppress=True)
    os.unlink(tmp_path / "wallets" / "w" / "coldkey")
    return made


@pytest.fixture
def settings(tmp_path, wallet):
    return MinerSettings.load(
        {},
        wallet_path=tmp_path / "wallets",
        wallet_name="w",
        hotkey="h",
        data_dir=tmp_path / "data",
        host="127.0.0.1",
        port=0,
        relay_port=0,
        runtime="process",
        declare_gpu="h100_sxm:1",
        poll_seconds=0.05,
    )


@pytest.fixture
async def world(serve_validator, make_validator, wallet):
    validator = await serve_validator(make_validator())
    chain = FakeChain()
    chain.neurons = {
        validator.hotkey: Neuron(validator.hotkey, validator_permit=True),
        wallet.hotkey.ss58_address: Neuron(wallet.hotkey.ss58_address),
    }
    chain.texts = {validator.hotkey: commitment_of(validator.url)}
    return chain, validator


def connect_to(chain):
    return lambda url, netuid: chain


async def until(condition):
    async def look():
        while not condition():  # noqa: ASYNC110 - a thread's work gives no event
            await asyncio.sleep(0.02)

    await asyncio.wait_for(look(), WAIT_S)


async def test_losing_the_registration_ends_the_miner(world, settings, wallet):
    """A deregistered miner stops its instances, tells validators, and ends with its own code."""
    chain, validator = world
    validator.want()
    running = asyncio.create_task(run(settings, connect=connect_to(chain)))
    await validator.until(lambda: validator.events_of("listening"), WAIT_S)
    del chain.neurons[wallet.hotkey.ss58_address]
    assert await asyncio.wait_for(running, WAIT_S) == 3
    assert [event.reason for _, event in validator.events_of("gone")] == ["deregistered"]
    assert chain.closed


async def test_a_chain_outage_is_survived(world, settings):
    """While no node answers the last view is kept and work goes on."""
    chain, validator = world
    running = asyncio.create_task(run(settings, connect=connect_to(chain)))
    await until(lambda: chain.reads > 1)
    chain.down = True
    seen = chain.reads
    await until(lambda: chain.reads > seen + 2)
    validator.want()
    await validator.until(lambda: validator.events_of("listening"), WAIT_S)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, WAIT_S) == 0
    assert [event.reason for _, event in validator.events_of("gone")] == ["miner_ended"]


async def test_two_validators_never_hold_one_gpu(world, settings, serve_validator, make_validator):
    """With two validators that want, one GPU is leased and launched for one of them at a time."""
    chain, first = world
    second = await serve_validator(make_validator(key=Keypair.create_from_uri("//Validator2")))
    chain.neurons[second.hotkey] = Neuron(second.hotkey, validator_permit=True)
    chain.texts[second.hotkey] = commitment_of(second.url)
    for validator in (first, second):
        validator.want()
    running = asyncio.create_task(run(settings, connect=connect_to(chain)))
    await until(lambda: first.events_of("listening") or second.events_of("listening"))
    for _ in range(5):
        chain.block += 20  # several lease terms pass
        seen = chain.reads
        await until(lambda seen=seen: chain.reads > seen + 4)
    assert len(first.requests) + len(second.requests) == 1
    served, idle = (first, second) if first.requests else (second, first)
    launch_id, _ = served.events_of("listening")[0]
    served.set_state(launch_id, "gone", "scaled_down")
    for _ in range(300):
        if idle.requests:
            break
        chain.block += 100
        seen = chain.reads
        await until(lambda seen=seen: chain.reads > seen + 4)
    held = [lease for v in (first, second) for _, r in v.requests for lease in r.leases]
    assert len(held) == 2
    assert not held[0].conflicts_with(held[1])
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, WAIT_S) == 0


async def test_an_error_at_the_start_leaves_instances_for_the_next_start(world, settings, tmp_path):
    """A miner that cannot read the chain at its start does not end what still runs."""
    chain, validator = world
    validator.want()
    running = asyncio.create_task(run(settings, connect=connect_to(chain)))
    await validator.until(lambda: validator.events_of("listening"), WAIT_S)
    running.cancel()  # as abrupt as it gets inside one process
    with pytest.raises(asyncio.CancelledError):
        await running
    chain.down = True
    with pytest.raises(ChutesError) as caught:
        await run(settings, connect=connect_to(chain))
    assert caught.value.code == "chain_unreachable"
    assert len(list((tmp_path / "data" / "instances").iterdir())) == 1
    chain.down, seen = False, chain.reads
    running = asyncio.create_task(run(settings, connect=connect_to(chain)))
    await until(lambda: chain.reads > seen + 5)
    assert validator.events_of("gone") == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, WAIT_S) == 0
    assert [event.reason for _, event in validator.events_of("gone")] == ["miner_ended"]


async def test_a_hotkey_lost_while_down_ends_what_still_runs(world, settings, wallet):
    """Starting deregistered is refused, and instances of the former life are ended."""
    chain, validator = world
    validator.want()
    running = asyncio.create_task(run(settings, connect=connect_to(chain)))
    await validator.until(lambda: validator.events_of("listening"), WAIT_S)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    del chain.neurons[wallet.hotkey.ss58_address]
    with pytest.raises(Forbidden, match="not registered"):
        await run(settings, connect=connect_to(chain))
    assert list((settings.data_path / "instances").iterdir()) == []
