"""Controls of a running process: connections, lost answers, pruned state, over plain HTTP."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from chutes_core.base.errors import Invalid, Unavailable
from chutes_core.devnet.controls import Controls
from chutes_core.devnet.launch import DevnetProcess

NUMBER_KEY = "0x26aa394eea5630e07c48ae0c9558cef702a5c1b19ab7a04f536c519aca4983ac"


@pytest.fixture(scope="module")
def quiet(metadata_file):
    """A devnet whose timer makes no block while tests look."""
    with DevnetProcess(block_seconds=60, dev_controls=True) as process:
        yield process


@pytest.fixture
def controls(quiet):
    controls = quiet.controls()
    yield controls
    controls.heal()


async def ask(socket, method, *params):
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    await socket.send(json.dumps(request))
    return json.loads(await asyncio.wait_for(socket.recv(), 60))


def test_blocks_are_made_when_asked_for(controls):
    """Three blocks at once; finality follows two behind."""
    before = controls.best()
    controls.new_block(3)
    assert (controls.best(), controls.finalized()) == (before + 3, before + 1)


def test_without_the_flag_there_are_no_controls(metadata_file):
    """The error says which option is missing, and rpc_methods lists none."""
    with DevnetProcess(block_seconds=60) as plain:
        controls = Controls(plain.url)
        with pytest.raises(Invalid, match="--dev-controls"):
            controls.new_block()
        methods = controls.call("rpc_methods")["methods"]
        assert not [name for name in methods if name.startswith("dev_")]
        assert controls.best() == 1


async def test_connections_break_without_a_closing_frame(quiet, controls):
    """Everyone who was there is cut off; who comes again is served."""
    async with connect(quiet.url) as first, connect(quiet.url) as second:
        await ask(first, "system_chain")
        await ask(second, "system_chain")
        assert await asyncio.to_thread(controls.fault, "drop_connections") == 2
        for socket in (first, second):
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(socket.recv(), 60)
            assert closed.value.rcvd is None
    async with connect(quiet.url) as again:
        assert "result" in await ask(again, "system_chain")


async def test_refused_connections_come_back_when_healed(quiet, controls):
    """No websocket is taken, no plain request answered, only the controls are."""
    await asyncio.to_thread(controls.fault, "refuse_connections")
    with pytest.raises((WebSocketException, OSError, EOFError)):
        await connect(quiet.url)
    with pytest.raises(Unavailable):
        await asyncio.to_thread(controls.best)
    await asyncio.to_thread(controls.heal, "refuse_connections")
    async with connect(quiet.url) as socket:
        assert "result" in await ask(socket, "system_chain")


@pytest.mark.parametrize("close", [True, False])
async def test_an_answer_is_lost_once(quiet, controls, close):
    """The next call of that method gets none; the one after it does."""
    options = {"method": "system_name", "close": close}
    await asyncio.to_thread(lambda: controls.fault("lose_answer", **options))
    async with connect(quiet.url) as socket:
        assert "result" in await ask(socket, "system_chain")
        await socket.send('{"jsonrpc":"2.0","id":2,"method":"system_name"}')
        with pytest.raises(ConnectionClosed if close else asyncio.TimeoutError):
            await asyncio.wait_for(socket.recv(), 10 if close else 0.3)
    async with connect(quiet.url) as socket:
        assert "result" in await ask(socket, "system_name")


async def test_pruned_state_is_read_on_the_archive_path_only(quiet, controls):
    """The words are those of a real node; bodies and headers stay."""
    await asyncio.to_thread(controls.new_block, 4)
    await asyncio.to_thread(lambda: controls.fault("prune_state", blocks=2))
    async with connect(quiet.url) as socket, connect(quiet.url + "/archive") as archive:
        answer = await ask(socket, "state_getStorage", NUMBER_KEY, quiet.genesis_hash)
        assert f"State already discarded for {quiet.genesis_hash}" in answer["error"]["message"]
        answer = await ask(archive, "state_getStorage", NUMBER_KEY, quiet.genesis_hash)
        assert "result" in answer
        assert (await ask(socket, "state_getStorage", NUMBER_KEY))["result"]
        assert (await ask(socket, "chain_getBlock", quiet.genesis_hash))["result"]


async def test_a_new_version_is_told_to_subscribers(quiet, controls):
    """The subscription hears of it, and the version at the old block stays."""
    async with connect(quiet.url) as socket:
        await ask(socket, "state_subscribeRuntimeVersion")
        first = json.loads(await asyncio.wait_for(socket.recv(), 60))["params"]["result"]
        spec = first["specVersion"] + 1
        await asyncio.to_thread(lambda: controls.fault("spec_version", spec=spec))
        heard = json.loads(await asyncio.wait_for(socket.recv(), 60))["params"]["result"]
        assert heard["specVersion"] == spec
        old = (await ask(socket, "state_getRuntimeVersion", quiet.genesis_hash))["result"]
        assert old["specVersion"] == 461
        assert (await ask(socket, "state_getRuntimeVersion"))["result"]["specVersion"] == spec


async def test_plain_http_answers_requests_batches_and_nonsense(quiet):
    """A subscription is refused; a wrong head gets a status and no more."""
    port = int(quiet.url.rpartition(":")[2])

    async def post(head, body):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + b"\r\n\r\n" + body)
        raw = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        return raw

    async def request(message):
        body = json.dumps(message).encode()
        raw = await post(f"POST / HTTP/1.1\r\nContent-Length: {len(body)}", body)
        assert raw.startswith(b"HTTP/1.1 200")
        return json.loads(raw.partition(b"\r\n\r\n")[2])

    one = {"jsonrpc": "2.0", "id": 1, "method": "system_chain"}
    assert (await request(one))["result"] == "Chutes Devnet"
    assert [answer["id"] for answer in await request([one, one])] == [1, 1]
    refused = await request({**one, "method": "chain_subscribeNewHeads"})
    assert "websocket" in refused["error"]["message"]
    assert (await request(7))["error"]["code"] == -32600
    assert (await post("POST / HTTP/1.1", b"")).startswith(b"HTTP/1.1 411")
    assert (await post("POST /\r\nContent-Length: 1", b"x")).startswith(b"HTTP/1.1 411")
    huge = f"POST / HTTP/1.1\r\nContent-Length: {1 << 40}"
    assert (await post(huge, b"")).startswith(b"HTTP/1.1 413")
