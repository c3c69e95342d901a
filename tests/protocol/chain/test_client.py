"""The chain client against a devnet over a real socket, with the real SDK."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import bittensor as bt
import pytest

from chutes_core.base.errors import ChainError, Exhausted, Invalid, NotFound, TimedOut, Unavailable
from chutes_core.chain.client import ChainClient
from chutes_core.chain.connection import Patience
from chutes_core.chain.registration import check, offer, register
from chutes_core.devnet.launch import DevnetProcess

IMPATIENT = Patience(call_timeout_s=5.0, attempts=3, first_backoff_s=0.05)


def with_sdk(devnet, act):
    """Run one coroutine function on the SDK's own client."""

    async def run():
        async with bt.Client(devnet.url) as sdk:
            return await act(sdk)

    return asyncio.run(run())


def pending_of(keypair):
    """Return what counts an account's extrinsics, the pool's included."""

    async def count(sdk):
        return await sdk._substrate.raw.rpc_request(
            "system_accountNextIndex", [keypair.ss58_address]
        )

    return count


def wait_until(condition):
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_blocks(client, blocks):
    """Let some blocks be finalized."""
    until = client.finalized().number + blocks
    deadline = time.monotonic() + 90
    while client.finalized().number < until:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def neuron(devnet, key):
    """A registered hotkey and its coldkey."""
    coldkey, hotkey = key("//Miner1"), key("//Miner1//neuron")
    with ChainClient.connect(devnet.url, devnet.netuid) as client:
        register(client, coldkey, hotkey.ss58_address, None)
    return coldkey, hotkey


def test_connecting_reads_the_chain_and_its_marker(client, devnet):
    """Genesis hash and marker are those of the devnet."""
    assert client.genesis_hash == devnet.genesis_hash
    assert client.is_devnet


def test_a_chain_without_the_marker_is_no_devnet():
    """The same software with another genesis does not count as a devnet."""
    with (
        DevnetProcess(block_seconds=0.5, foreign_genesis=True) as foreign,
        ChainClient.connect(foreign.url, foreign.netuid) as client,
    ):
        assert not client.is_devnet


def test_subnet_and_metagraph_agree_with_the_sdk(client, devnet):
    """What we read in integers is what the SDK's own reads say."""
    metagraph, subnet = client.metagraph(), client.subnet()

    async def read(sdk):
        theirs = await (await sdk.at(metagraph.block)).subnets.metagraph(devnet.netuid)
        return theirs, await sdk.query(bt.storage.SubtensorModule.Tempo, [devnet.netuid])

    theirs, tempo = with_sdk(devnet, read)
    for ours, other in zip(metagraph.neurons, theirs.neurons, strict=True):
        assert (ours.uid, ours.hotkey, ours.coldkey) == (other.uid, other.hotkey, other.coldkey)
        assert ours.stake_rao == other.total_stake.rao
        assert ours.registered_at_block == other.block_at_registration
        assert ours.validator_permit == other.validator_permit
    assert int(tempo) == subnet.tempo
    assert len(metagraph.validators()) == 2
    assert subnet.owner_hotkey == metagraph.neurons[0].hotkey
    assert subnet.next_epoch_block > subnet.block >= subnet.last_epoch_block
    assert subnet.neuron_count == len(metagraph.neurons)


def test_a_missing_subnet_is_named(devnet):
    """A netuid that does not exist is not found, in every read."""
    with ChainClient.connect(devnet.url, 99) as client:
        for read in (client.subnet, client.metagraph):
            with pytest.raises(NotFound, match="no_such_subnet"):
                read()


def test_registering_costs_the_burn_and_shows_in_the_metagraph(client, key):
    """The receipt names a finalized block from which on the hotkey has a uid."""
    coldkey, hotkey = key("//Eve"), key("//Eve//registers")
    offered = offer(client, hotkey.ss58_address, coldkey.ss58_address)
    assert offered.registered is None
    assert not offered.full
    receipt = register(client, coldkey, hotkey.ss58_address, None)
    found = client.metagraph().by_hotkey(hotkey.ss58_address)
    assert found.registered_at_block == receipt.block_number <= client.finalized().number
    assert found.coldkey == coldkey.ss58_address
    paid = offered.balance_rao - client.balance_rao(coldkey.ss58_address)
    assert offered.burn_rao <= paid < offered.burn_rao + 10**8
    assert client.owner_of(hotkey.ss58_address) == coldkey.ss58_address
    assert offer(client, hotkey.ss58_address, coldkey.ss58_address).registered == found


def test_the_chain_enforces_the_price_limit(client, key):
    """Below the price, register_limit fails at dispatch and no uid is made."""
    coldkey, hotkey = key("//Eve"), key("//Eve//too-dear")
    burn = client.subnet().burn_rao
    with pytest.raises(ChainError) as refused:
        register(client, coldkey, hotkey.ss58_address, burn - 1)
    assert refused.value.code == "burn_over_limit"
    assert client.metagraph().by_hotkey(hotkey.ss58_address) is None
    offered = offer(client, hotkey.ss58_address, coldkey.ss58_address)
    with pytest.raises(ChainError, match="burn_over_limit"):
        check(offered, burn - 1)
    register(client, coldkey, hotkey.ss58_address, burn)
    assert client.metagraph().by_hotkey(hotkey.ss58_address)


def test_a_poor_coldkey_cannot_register(client, key):
    """An unfunded coldkey is told before and by the chain."""
    coldkey = key("//Pauper")
    offered = offer(client, coldkey.ss58_address, coldkey.ss58_address)
    with pytest.raises(ChainError, match="insufficient_balance"):
        check(offered, None)
    with pytest.raises(ChainError) as refused:
        register(client, coldkey, coldkey.ss58_address, None)
    assert refused.value.code == "insufficient_balance"


def test_serving_is_idempotent(client, neuron):
    """The first announcement is an extrinsic; the same again is none."""
    _, hotkey = neuron
    receipt = client.serve_axon(hotkey, "127.0.0.1", 8_091)
    served = client.metagraph().by_hotkey(hotkey.ss58_address)
    assert (served.axon_ip, served.axon_port) == ("127.0.0.1", 8_091)
    assert receipt.extrinsic_hash.startswith("0x")
    assert served in client.metagraph().serving()
    assert client.serve_axon(hotkey, "127.0.0.1", 8_091) is None


@pytest.mark.parametrize(("ip", "port"), [("here", 1), ("127.0.0.1", 0), ("127.0.0.1", 65_536)])
def test_a_bad_address_is_refused_before_the_chain(client, neuron, ip, port):
    """What is no address costs no fee."""
    with pytest.raises(Invalid, match="bad_axon_address"):
        client.serve_axon(neuron[1], ip, port)


def test_a_commitment_is_idempotent_and_readable(client, neuron):
    """What was committed is read by all, and not committed twice."""
    _, hotkey = neuron
    assert client.set_commitment(hotkey, "chutes/1 https://example.org") is not None
    assert client.commitments()[hotkey.ss58_address] == "chutes/1 https://example.org"
    assert client.set_commitment(hotkey, "chutes/1 https://example.org") is None


def test_the_longest_commitment_fits(client, key):
    """128 bytes can be committed."""
    hotkey = key("//Validator2//hotkey")
    client.set_commitment(hotkey, "x" * 128)
    assert client.commitments()[hotkey.ss58_address] == "x" * 128


def test_unregistered_hotkeys_can_announce_nothing(client, key):
    """A hotkey without a uid is told to register, and nothing is sent."""
    for act in (
        lambda: client.serve_axon(key("//Nobody"), "127.0.0.1", 1),
        lambda: client.set_commitment(key("//Nobody"), "x"),
    ):
        with pytest.raises(ChainError) as refused:
            act()
        assert refused.value.code == "not_registered"
        assert "register.py" in refused.value.hint


def test_weights_arrive_unaltered_and_never_twice_in_a_window(client, devnet, key, neuron):
    """The integers stand on chain as they were sent; the rate limit holds the next vector back."""
    validator = key("//Validator1//hotkey")
    metagraph = client.metagraph()
    uid = metagraph.by_hotkey(neuron[1].ss58_address).uid
    own = metagraph.by_hotkey(validator.ss58_address)
    receipt = client.set_weights(validator, {uid: 65_535, 0: 3}, client.subnet().weights_version)

    async def read(sdk):
        item = bt.storage.SubtensorModule.Weights
        stored = await sdk.query(item, [devnet.netuid, own.uid])
        return stored, await sdk.block_info(receipt.block_number)

    stored, block = with_sdk(devnet, read)
    assert sorted(map(tuple, stored)) == [(0, 3), (uid, 65_535)]
    assert block.hash == receipt.block_hash
    assert client.metagraph().by_uid(own.uid).last_update == receipt.block_number
    with pytest.raises(Exhausted) as early:
        client.set_weights(validator, {uid: 65_535}, 0)
    assert early.value.code == "weights_rate_limited"
    assert early.value.facts["blocks"] >= 1


def test_weights_without_a_permit_are_refused(client, neuron):
    """A miner cannot set weights; the reason has a code."""
    wait_blocks(client, 6)
    with pytest.raises(ChainError) as refused:
        client.set_weights(neuron[1], {0: 65_535}, 0)
    assert refused.value.code in ("no_validator_permit", "not_enough_stake_to_set_weights")
    assert refused.value.hint


@pytest.mark.parametrize("weights", [{}, {1: 0}, {1: 65_536}, {-1: 5}, {65_536: 5}])
def test_vectors_that_cannot_be_are_refused_before_the_chain(client, key, weights):
    """Empty, zero and out-of-range vectors cost no fee."""
    with pytest.raises(Invalid, match="bad_weights"):
        client.set_weights(key("//Validator1//hotkey"), weights, 0)


def test_an_empty_coldkey_is_named(client, devnet, key):
    """A hotkey whose coldkey cannot pay the fee says just that."""
    coldkey, hotkey = key("//Spent"), key("//Spent//hotkey")
    burn = client.subnet().burn_rao
    fund = bt.calls.Balances.transfer_keep_alive(dest=coldkey.ss58_address, value=burn + 20_000_000)
    client.call(key("//Dave"), fund, "fund the coldkey")
    register(client, coldkey, hotkey.ss58_address, None)
    drain = bt.calls.Balances.transfer_all(dest=key("//Dave").ss58_address, keep_alive=False)
    client.call(coldkey, drain, "drain the coldkey")
    with pytest.raises(ChainError) as refused:
        client.serve_axon(hotkey, "127.0.0.1", 8_092)
    assert refused.value.code == "coldkey_cannot_pay"
    assert "coldkey" in refused.value.hint


def test_reads_survive_a_cut_connection(devnet, relay):
    """A read on a connection that was cut reconnects and answers."""
    with ChainClient.connect(relay.url, devnet.netuid, patience=IMPATIENT) as client:
        before = client.finalized().number
        for _ in range(3):
            relay.cut()
            assert client.finalized().number >= before


def test_a_node_that_stays_away_is_a_typed_error_after_bounded_tries(devnet, relay):
    """Retries end; the error names the node, and the client works again once it is back."""
    waits = []
    with ChainClient.connect(
        relay.url, devnet.netuid, patience=IMPATIENT, sleep=waits.append
    ) as client:
        relay.closed = True
        relay.cut()
        with pytest.raises(Unavailable) as lost:
            client.finalized()
        assert lost.value.code in ("chain_unreachable", "chain_timeout")
        assert relay.url in lost.value.message
        assert waits == [0.05, 0.1]
        relay.closed = False
        assert client.finalized().number > 0


def test_a_node_that_ends_is_noticed_in_bounded_time():
    """After an orderly end of the node, a read fails instead of waiting for ever."""
    node = DevnetProcess(block_seconds=0.2).start()
    hasty = Patience(call_timeout_s=1.0, attempts=2, first_backoff_s=0.05)
    with ChainClient.connect(node.url, node.netuid, patience=hasty) as client:
        node.stop()
        with pytest.raises(Unavailable):
            client.finalized()


def test_a_node_of_another_chain_is_refused(devnet, relay):
    """A reconnection that finds another genesis reads nothing from it."""
    with (
        DevnetProcess(block_seconds=0.5, tempo=21) as other,
        ChainClient.connect(relay.url, devnet.netuid, patience=IMPATIENT) as client,
    ):
        relay.upstream = other.url
        relay.cut()
        with pytest.raises(ChainError, match="another_chain"):
            client.finalized()


def test_no_node_at_all_is_a_typed_error():
    """Connecting to a closed port ends with a code and a hint."""
    with pytest.raises(Unavailable) as lost:
        ChainClient.connect("ws://127.0.0.1:9", 1, patience=IMPATIENT)
    assert lost.value.hint


def test_an_unknown_network_name_is_refused():
    """A name that the SDK does not know is no URL."""
    with pytest.raises(Invalid, match="unknown_network"):
        ChainClient.connect("nowhere", 1)


def test_a_closed_client_says_so(devnet):
    """After close, calls fail at once; closing twice is fine."""
    client = ChainClient.connect(devnet.url, devnet.netuid)
    client.close()
    client.close()
    with pytest.raises(Unavailable, match="chain_closed"):
        client.finalized()


def test_closing_cuts_off_a_wait_for_finality(key):
    """A process that ends is not held up by a thread that waits for a block."""
    with (
        DevnetProcess(block_seconds=60) as still,
        ThreadPoolExecutor(1) as pool,
    ):
        client = ChainClient.connect(still.url, still.netuid)
        hotkey = key("//Validator1//hotkey")
        waiting = pool.submit(client.set_commitment, hotkey, "never finalized in time")
        wait_until(lambda: with_sdk(still, pending_of(hotkey)) == 1)
        client.close()
        with pytest.raises(Unavailable, match="chain_closed"):
            waiting.result(60)


def test_closing_cuts_off_retries(devnet, relay):
    """A thread that keeps trying to reach a lost node ends when the client is closed."""
    patient = Patience(attempts=10, first_backoff_s=60.0, max_backoff_s=60.0)
    client = ChainClient.connect(relay.url, devnet.netuid, patience=patient)
    relay.closed = True
    relay.cut()
    with ThreadPoolExecutor(1) as pool:
        trying = pool.submit(client.finalized)
        wait_until(lambda: relay.refused > 0)
        client.close()
        with pytest.raises(Unavailable):
            trying.result(60)


def test_a_lost_reply_is_found_by_its_hash(devnet, key, neuron, monkeypatch):
    """The node took the extrinsic and the answer was lost: it is found, not sent again."""
    sent = []
    original = bt.RpcSubstrate.submit_signed

    async def lossy(self, extrinsic, *args, **kwargs):
        sent.append(extrinsic.extrinsic_hash)
        await original(self, extrinsic, *args, **kwargs)
        raise bt.RpcConnectionError("cut")

    monkeypatch.setattr(bt.RpcSubstrate, "submit_signed", lossy)
    with ChainClient.connect(devnet.url, devnet.netuid, patience=IMPATIENT) as client:
        receipt = client.set_commitment(neuron[1], "after a lost reply")
        assert sent == [receipt.extrinsic_hash]
        assert client.commitments()[neuron[1].ss58_address] == "after a lost reply"


def test_an_extrinsic_that_never_arrived_is_given_up_after_its_era(key, monkeypatch):
    """In no block of its era it is dead, and the error allows another try."""

    async def swallowed(self, extrinsic, *args, **kwargs):
        raise bt.RpcConnectionError("cut")

    with (
        DevnetProcess(block_seconds=0.05) as fast,
        ChainClient.connect(fast.url, fast.netuid, patience=IMPATIENT) as client,
    ):
        monkeypatch.setattr(bt.RpcSubstrate, "submit_signed", swallowed)
        with pytest.raises(ChainError) as died:
            client.set_commitment(key("//Validator1//hotkey"), "lost")
    assert died.value.code == "extrinsic_died"


def test_an_unknown_fate_is_a_timeout_that_names_the_hash(devnet, neuron, monkeypatch):
    """Before the era ends, nobody can tell; the hash lets a person look."""

    async def swallowed(self, extrinsic, *args, **kwargs):
        raise bt.RpcConnectionError("cut")

    monkeypatch.setattr(bt.RpcSubstrate, "submit_signed", swallowed)
    short = Patience(finality_timeout_s=0.3)
    with (
        ChainClient.connect(devnet.url, devnet.netuid, patience=short) as client,
        pytest.raises(TimedOut) as unknown,
    ):
        client.set_commitment(neuron[1], "unknown fate")
    assert unknown.value.code == "extrinsic_unknown"
    assert unknown.value.facts["extrinsic_hash"].startswith("0x")


def test_a_key_with_an_extrinsic_under_way_gets_no_second_one(key):
    """While the pool holds an extrinsic of the key, nothing else of it is sent."""
    ferdie, remark = key("//Ferdie"), bt.calls.System.remark(remark=b"under way")
    with (
        DevnetProcess(block_seconds=3) as slow,
        ChainClient.connect(slow.url, slow.netuid) as client,
    ):

        async def send(sdk):
            await sdk.submit_call(
                remark, ferdie, wait_for_inclusion=False, wait_for_finalization=False
            )

        wait_blocks(client, 1)  # just after a block, so that the next one is far
        with_sdk(slow, send)
        with pytest.raises(Unavailable) as refused:
            client.call(ferdie, remark, "remark")
    assert refused.value.code == "extrinsic_in_flight"
