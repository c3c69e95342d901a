"""The server's bounds, with a chain and a server inside the test's process."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chutes_core.devnet import server as server_module
from chutes_core.devnet import subscriptions
from chutes_core.devnet.chain import Chain
from chutes_core.devnet.codec import Codec
from chutes_core.devnet.genesis import GenesisParams
from chutes_core.devnet.metadata import load_metadata, patch_metadata
from chutes_core.devnet.rpc import Rpc


@pytest.fixture
async def running(metadata_file):
    """A chain that makes a block only when told, and the address of its server."""
    codec = Codec(patch_metadata(load_metadata(metadata_file), block_ms=1_000))
    chain = Chain(codec, GenesisParams())
    times = iter(range(1_700_000_000_000, 1_800_000_000_000, 1_000))
    server = await server_module.start_server(Rpc(chain), "127.0.0.1", 0)
    port = next(iter(server.sockets)).getsockname()[1]
    yield chain, times, f"ws://127.0.0.1:{port}"
    server.close()
    await server.wait_closed()


async def ask(socket, method, *params):
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    await socket.send(json.dumps(request))
    return json.loads(await asyncio.wait_for(socket.recv(), 60))


async def drain(socket):
    while True:
        await socket.recv()


async def test_one_connection_too_many_is_turned_away(running, monkeypatch):
    """It gets HTTP 503; a place that becomes free is given again."""
    _, _, url = running
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 1)
    async with connect(url) as first:
        await ask(first, "system_chain")
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.status_code == 503


async def test_a_client_that_does_not_read_is_cut_off(running, monkeypatch):
    """Its outbox is bounded, and others go on."""
    chain, times, url = running
    monkeypatch.setattr(server_module, "MAX_OUTBOX", 4)
    async with connect(url) as other:
        slow = await connect(url)
        assert "result" in await ask(slow, "chain_subscribeNewHeads")
        for _ in range(10):
            chain.produce(next(times))  # all at once: nothing can be sent in between
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(drain(slow), 60)
        assert closed.value.rcvd.reason == "too slow"
        assert "result" in await ask(other, "system_chain")
    assert chain.on_best == []


async def test_subscriptions_per_connection_are_bounded(running, monkeypatch):
    """One more than allowed is refused with the number."""
    _, _, url = running
    monkeypatch.setattr(subscriptions, "MAX_SUBSCRIPTIONS", 1)
    async with connect(url) as socket:
        assert "result" in await ask(socket, "state_subscribeRuntimeVersion")
        await asyncio.wait_for(socket.recv(), 60)
        answer = await ask(socket, "state_subscribeRuntimeVersion")
        assert "at most 1" in answer["error"]["message"]


async def test_discarded_state_is_told_in_the_words_clients_know(running, monkeypatch):
    """SDKs switch to an archive when they read 'State already discarded for'."""
    chain, times, url = running
    monkeypatch.setattr(chain.store, "_kept", 2)
    for _ in range(3):
        chain.produce(next(times))
    key = "0x" + chain.codec.key("System", "Number", ()).hex()
    genesis = "0x" + chain.genesis_hash.hex()
    async with connect(url) as socket:
        answer = await ask(socket, "state_getStorage", key, genesis)
        assert f"State already discarded for {genesis}" in answer["error"]["message"]
        assert (await ask(socket, "chain_getBlock", genesis))["result"]["block"]["header"]
