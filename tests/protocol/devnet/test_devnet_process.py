"""The process: options, the ready file, signals, limits, raw JSON-RPC."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from hashlib import blake2b

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from chutes_core.base.errors import Invalid, Unavailable
from chutes_core.devnet.launch import DevnetProcess
from chutes_core.devnet.server import MAX_BODY_BYTES
from chutes_core.devnet.settings import DevnetSettings

MARKER = "0x" + blake2b(b"chutes-devnet/1", digest_size=32).hexdigest()


async def ask(socket, method, *params, identity=1):
    request = {"jsonrpc": "2.0", "id": identity, "method": method, "params": list(params)}
    await socket.send(json.dumps(request))
    while True:
        answer = json.loads(await asyncio.wait_for(socket.recv(), 60))
        if answer.get("id") == identity:
            return answer


def test_it_stops_with_0(metadata_file):
    """SIGTERM ends it cleanly, long before it would be killed, and its folder is gone."""
    process = DevnetProcess(block_seconds=0.2).start()
    folder = process._folder
    pid = process.pid
    assert process.stop() == 0
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_connected_clients_do_not_hold_it_up(metadata_file):
    """It stops as well while a client follows its heads; the client is told."""
    process = DevnetProcess(block_seconds=0.2).start()
    socket = await connect(process.url)
    await ask(socket, "chain_subscribeNewHeads")
    assert await asyncio.to_thread(process.stop) == 0
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(_drain(socket), 60)


async def _drain(socket):
    while True:
        await socket.recv()


def test_the_environment_configures_it_and_a_typo_is_refused():
    """CHUTES_DEVNET_TEMPO counts; CHUTES_DEVNET_TEMPOO names the closest setting."""
    assert DevnetSettings.load({}).tempo == 20
    with pytest.raises(Invalid, match="TEMPOO") as caught:
        DevnetSettings.load({"CHUTES_DEVNET_TEMPOO": "7"})
    assert "CHUTES_DEVNET_TEMPO?" in caught.value.hint


def test_missing_metadata_exits_2_and_names_the_command(tmp_path):
    """The error says what to run."""
    command = [sys.executable, "-m", "chutes_core.devnet", "--metadata", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 2
    assert "python scripts/fetch_metadata.py" in done.stderr


@pytest.mark.parametrize("option", [("--block-seconds", "0"), ("--tempo", "0")])
def test_an_impossible_option_exits_2(option):
    """A value out of range is refused by its option's name."""
    command = [sys.executable, "-m", "chutes_core.devnet", *option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 2
    assert option[0] in done.stderr


def test_a_child_that_fails_is_told_with_its_output(tmp_path):
    """DevnetProcess raises with the reason instead of waiting for its time-out."""
    with pytest.raises(Unavailable, match="fetch_metadata"):
        DevnetProcess(extra=("--metadata", str(tmp_path / "none"))).start()


async def test_the_marker_is_on_the_wire(devnet):
    """Header 0 as clients read it carries the devnet's state root."""
    async with connect(devnet.url) as socket:
        genesis = (await ask(socket, "chain_getBlockHash", 0))["result"]
        header = (await ask(socket, "chain_getHeader", genesis))["result"]
    assert genesis == devnet.genesis_hash
    assert header["stateRoot"] == MARKER
    assert header["parentHash"] == "0x" + "00" * 32


async def test_a_foreign_genesis_lacks_the_marker(metadata_file):
    """Started with --foreign-genesis the chain works but does not count as a devnet."""
    with DevnetProcess(block_seconds=0.2, foreign_genesis=True) as process:
        async with connect(process.url) as socket:
            header = (await ask(socket, "chain_getHeader", process.genesis_hash))["result"]
    assert header["stateRoot"] != MARKER


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("no_such_method", [], -32601),
        ("state_call", ["NoApi_method", "0x"], -32000),
        ("state_call", ["AccountNonceApi_account_nonce", "0x00"], -32602),
        ("state_getStorage", ["not hex"], -32602),
        ("state_getStorage", [], -32602),
        ("state_getStorage", ["0x00", "0x" + "11" * 32], -32000),
        ("chain_getBlockHash", [{}], -32602),
        ("state_getKeysPaged", ["0x", 100_000], -32602),
        ("system_accountNextIndex", ["not an address"], -32602),
        ("author_submitExtrinsic", ["0x00"], 1001),
    ],
)
async def test_wrong_requests_are_answered_with_an_error(devnet, method, params, code):
    """Each gets a JSON-RPC error at once, and the connection lives on."""
    async with connect(devnet.url) as socket:
        answer = await ask(socket, method, *params)
        assert answer["error"]["code"] == code
        assert "result" in await ask(socket, "system_chain", identity=2)


async def test_what_is_not_json_rpc_is_answered_too(devnet):
    """Garbage, wrong shapes and empty batches get an error without an id."""
    async with connect(devnet.url) as socket:
        for text in ("{", "[]", "7", '{"id": 1}', "[" * 100_000):
            await socket.send(text)
            answer = json.loads(await asyncio.wait_for(socket.recv(), 60))
            assert "error" in answer


async def test_batches_are_answered_together(devnet):
    """Answers come in one array, in order."""
    batch = [
        {"jsonrpc": "2.0", "id": n, "method": method, "params": []}
        for n, method in enumerate(("system_name", "no_such_method", "chain_getHead"))
    ]
    async with connect(devnet.url) as socket:
        await socket.send(json.dumps(batch))
        answers = json.loads(await asyncio.wait_for(socket.recv(), 60))
    assert [answer["id"] for answer in answers] == [0, 1, 2]
    assert ["error" in answer for answer in answers] == [False, True, False]


async def test_a_message_over_the_limit_closes_the_connection(devnet):
    """16 MiB is the most; others are not disturbed."""
    async with connect(devnet.url) as other:
        socket = await connect(devnet.url)
        with suppress(ConnectionClosed):  # it may be cut off while still sending
            await socket.send("x" * (MAX_BODY_BYTES + 1))
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert "result" in await ask(other, "system_chain")


async def test_a_subscription_ends_when_asked(devnet):
    """The first notification follows the answer; after the end there is none."""
    async with connect(devnet.url) as socket:
        await socket.send('{"jsonrpc":"2.0","id":1,"method":"chain_subscribeNewHeads"}')
        first = json.loads(await asyncio.wait_for(socket.recv(), 60))
        second = json.loads(await asyncio.wait_for(socket.recv(), 60))
        assert second["params"]["subscription"] == first["result"]
        ended = await ask(socket, "chain_unsubscribeNewHeads", first["result"], identity=2)
        assert ended["result"] is True
        again = await ask(socket, "chain_unsubscribeNewHeads", first["result"], identity=3)
        assert again["result"] is False


async def test_storage_changes_are_told(devnet):
    """A subscription on the block number hears of every block."""
    number = "0x26aa394eea5630e07c48ae0c9558cef702a5c1b19ab7a04f536c519aca4983ac"
    async with connect(devnet.url) as socket:
        await ask(socket, "state_subscribeStorage", [number])
        heard = [json.loads(await asyncio.wait_for(socket.recv(), 60)) for _ in range(3)]
    changes = [message["params"]["result"]["changes"][0][1] for message in heard]
    values = [int.from_bytes(bytes.fromhex(value[2:]), "little") for value in changes]
    assert values == [values[0], values[0] + 1, values[0] + 2]
