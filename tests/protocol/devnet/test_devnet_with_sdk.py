"""The unmodified bittensor SDK on a devnet, over a real socket."""

import asyncio

import bittensor as bt
import pytest
from bittensor_core import Keypair

from chutes_core.base.units import RAO_PER_TAO

TIMEOUT_S = 120
LOOPBACK = 0x7F000001


class Wallet:
    """What the SDK needs of a wallet, with development keys."""

    def __init__(self, uri):
        self.coldkey = Keypair.create_from_uri(uri)
        self.coldkeypub = self.coldkey
        self.hotkey = Keypair.create_from_uri(f"{uri}//hotkey")
        self.name = uri


@pytest.fixture
async def client(devnet):
    async with bt.Client(devnet.url, fallback_endpoints=[], archive_endpoints=[]) as client:
        yield client


def event_names(result):
    return [f"{event['module_id']}.{event['event_id']}" for event in result.events]


async def wait_epoch(client):
    return await client.wait_for_epoch(1, timeout=TIMEOUT_S)


async def test_the_sdk_connects_and_knows_the_block_time(client, devnet):
    """Genesis hash, spec and block time are what the devnet was started with."""
    assert await client._substrate.raw.genesis_hash() == devnet.genesis_hash
    assert await client.block_time() == 0.2
    info = await client.block_info(1)
    assert [call["call"]["call_module"] for call in info.extrinsics] == ["Timestamp", "MevShield"]


async def test_a_transfer_reaches_finality(client):
    """The SDK's receipt names block, index and fee; both balances moved by it."""
    alice = Keypair.create_from_uri("//Alice")
    bob = Keypair.create_from_uri("//Bob").ss58_address
    before = await client.balances.balance(bob)
    call = bt.calls.Balances.transfer_keep_alive(dest=bob, value=5 * RAO_PER_TAO)
    result = await client.submit_call(call, alice)
    assert result.success, result.message
    assert "Balances.Transfer" in event_names(result)
    assert result.fee.rao > 0
    assert (await client.balances.balance(bob)).rao == before.rao + 5 * RAO_PER_TAO
    block = int(result.extrinsic_id.split("-")[0])
    assert await client._substrate.finalized_block_number() >= block


async def test_events_of_a_finalized_block_are_read_by_its_hash(client):
    """A watcher that follows finalized heads sees the transfer where it was included."""
    ferdie, eve = (Keypair.create_from_uri(uri) for uri in ("//Ferdie", "//Eve"))
    call = bt.calls.Balances.transfer_keep_alive(dest=eve.ss58_address, value=123_456)
    sending = asyncio.create_task(client.submit_call(call, ferdie, wait_for_finalization=False))

    async def watch():
        async for header in client.blocks(finalized=True):
            block_hash = await client._substrate.block_hash(header.number)
            for event in await client._substrate.events(block_hash):
                fields = event["attributes"]
                if event["event_id"] == "Transfer" and fields["amount"] == 123_456:
                    return header.number, block_hash, fields
        raise AssertionError("the subscription ended")

    number, block_hash, fields = await asyncio.wait_for(watch(), TIMEOUT_S)
    result = await sending
    assert (result.block_hash, int(result.extrinsic_id.split("-")[0])) == (block_hash, number)
    assert fields["from"] == ferdie.ss58_address


async def test_many_extrinsics_of_one_key_in_flight(client):
    """Consecutive nonces from one client are all included."""
    dave = Keypair.create_from_uri("//Dave")
    calls = [bt.calls.System.remark(remark=bytes([number])) for number in range(8)]
    results = await asyncio.gather(*(client.submit_call(call, dave) for call in calls))
    assert all(result.success for result in results)
    assert len({result.extrinsic_id for result in results}) == len(calls)


async def test_a_neurons_life(client):
    """Register clear and shielded, serve, commit, weigh, and see it all in the metagraph."""
    clear, shielded, idle = Wallet("//Miner1"), Wallet("//Miner2"), Wallet("//Miner3")
    validator = Wallet("//Validator1")
    for wallet in (clear, idle):
        register = bt.calls.SubtensorModule.burned_register(
            netuid=1, hotkey=wallet.hotkey.ss58_address
        )
        result = await client.submit_call(register, wallet)
        assert result.success, result.message
        assert "SubtensorModule.NeuronRegistered" in event_names(result)
    intent = bt.intents.BurnedRegister(netuid=1, hotkey_ss58=shielded.hotkey.ss58_address)
    result = await client.execute(intent, shielded)
    assert result.success, result.message
    assert result.data["shielded"]
    assert "SubtensorModule.NeuronRegistered" in event_names(result)

    graph = await client.subnets.metagraph(1)
    uid = {
        wallet.name: graph.by_hotkey(wallet.hotkey.ss58_address).uid
        for wallet in (clear, shielded, idle)
    }

    axon = {"ip": LOOPBACK, "port": 8_091, "ip_type": 4, "protocol": 4, "version": 1}
    serve = bt.calls.SubtensorModule.serve_axon(netuid=1, placeholder1=0, placeholder2=0, **axon)
    result = await client.submit_call(serve, clear, signer="hotkey")
    assert result.success, result.message

    text = b"https://validator.example"
    fields = [[{f"Raw{len(text)}": "0x" + text.hex()}]]
    commit = bt.calls.Commitments.set_commitment(netuid=1, info={"fields": fields})
    result = await client.submit_call(commit, validator, signer="hotkey")
    assert result.success, result.message

    weights = {uid[clear.name]: 1.0, uid[shielded.name]: 3.0}
    result = await client.execute(bt.intents.SetWeights(netuid=1, weights=weights), validator)
    assert result.success, result.message
    assert "SubtensorModule.WeightsSet" in event_names(result)
    await wait_epoch(client)

    graph = await client.subnets.metagraph(1)
    by_uid = {neuron.uid: neuron for neuron in graph.neurons}
    assert by_uid[uid[clear.name]].axon == "127.0.0.1:8091"
    assert by_uid[uid[clear.name]].incentive == pytest.approx(0.25, abs=1e-3)
    assert by_uid[uid[shielded.name]].incentive == pytest.approx(0.75, abs=1e-3)
    assert by_uid[uid[idle.name]].incentive == 0
    assert by_uid[uid[clear.name]].emission.rao > 0
    assert graph.by_hotkey(validator.hotkey.ss58_address).commitment.value == text.decode()
    assert {neuron.uid for neuron in graph.validators} == {1, 2}
    lite = {neuron.uid: neuron for neuron in await client.neurons.all(1)}
    assert lite[uid[clear.name]].raw["axon_info"]["port"] == 8_091
    full = await client.neurons.all(1, lite=False)
    assert len(full[1].raw["weights"]) == 2


async def test_dispatch_errors_have_the_sdks_names(client):
    """The SDK maps the module error to its own code."""
    stranger = Wallet("//Eve")
    call = bt.calls.SubtensorModule.set_weights(netuid=1, dests=[0], weights=[1], version_key=0)
    result = await client.submit_call(call, stranger, signer="coldkey")
    assert not result.success
    assert result.error.name == "HotKeyNotRegisteredInSubNet"


async def test_a_rejected_extrinsic_is_an_error_result(client):
    """An account without money is refused by the pool, with the reason."""
    poor = Keypair.create_from_uri("//Nobody")
    result = await client.submit_call(bt.calls.System.remark(remark=b"x"), poor)
    assert not result.success
    assert result.block_hash is None


async def test_an_unknown_runtime_api_is_refused_at_once(client):
    """No waiting for what does not exist."""
    with pytest.raises(bt.ChainError, match="devnet has no runtime API"):
        await asyncio.wait_for(client.runtime(("GrandpaApi", "grandpa_authorities"), []), 5)
