"""The miner's HTTP against callers with and without a right to ask."""

import asyncio
import json
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import replace

import aiohttp
import pytest

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import Forbidden, NotFound
from chutes_core.miner.server import (
    LIMITS,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_ADDRESS,
    HttpServer,
    build_http,
)
from chutes_core.miner.store import MinerStore
from chutes_core.wire.control import Inventory, LogTail
from chutes_core.wire.peers import SignedClient
from chutes_core.wire.signing import sign_request

LAUNCH_ID = "0b4deb3d-0ead-407e-8786-df31b4a8999b"


@pytest.fixture
async def miner(tmp_path, keys, make_node):
    """Serve a miner; yield its address and a function that restarts it."""
    node = make_node(8092)
    listening = []

    async def authorise(hotkey):
        if hotkey != keys["validator"].ss58_address:
            raise Forbidden("no_permit", "no permit", hint="get stake")

    def log_of(caller, launch_id):
        if launch_id != LAUNCH_ID:
            raise NotFound("no_such_launch", "this miner holds no such launch of yours")
        return f"printed for {caller}\n"

    async def start(port=0, limits=LIMITS):
        store = MinerStore(tmp_path / "miner.sqlite3")
        http = build_http(
            keypair=keys["miner"],
            nonces=store,
            authorise=authorise,
            clock=SystemClock(),
            inventory=lambda: node.inventory(leases=(), launch_ids={}, now_s=7),
            log_of=log_of,
        )
        door = socket.create_server(("127.0.0.1", port))
        server = HttpServer(http, door, limits)
        await server.start()
        listening.append((server, store))
        return f"http://127.0.0.1:{door.getsockname()[1]}"

    async def stop():
        server, store = listening.pop()
        await server.close()
        store.close()

    yield start, stop
    while listening:
        await stop()


async def get(url, headers=None):
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, json.loads(await response.read())


async def test_ping_is_open(miner):
    """Anyone may see that the miner lives."""
    start, _ = miner
    assert await get(f"{await start()}/ping") == (200, {"ok": True})


async def test_a_permitted_validator_gets_a_signed_inventory(miner, keys):
    """The inventory's answer is verified against the miner's hotkey."""
    start, _ = miner
    url = await start()
    async with SignedClient(keys["validator"]) as client:
        answer = await client.call(
            "GET", url, "/inventory", Inventory, peer_hotkey_ss58=keys["miner"].ss58_address
        )
    assert answer.hotkey == keys["miner"].ss58_address
    assert [gpu.gpu_class for gpu in answer.gpus] == ["h100_sxm", "h100_sxm"]
    assert all(gpu.stand_in for gpu in answer.gpus)


async def test_a_validator_reads_what_its_instance_printed(miner, keys):
    """The tail of a launch's output is told to its validator; another launch is unknown."""
    start, _ = miner
    url, peer = await start(), keys["miner"].ss58_address
    async with SignedClient(keys["validator"]) as client:
        tail = await client.call("GET", url, f"/logs/{LAUNCH_ID}", LogTail, peer_hotkey_ss58=peer)
        assert tail.text == f"printed for {keys['validator'].ss58_address}\n"
        with pytest.raises(NotFound) as caught:
            await client.call("GET", url, "/logs/other", LogTail, peer_hotkey_ss58=peer)
    assert caught.value.code == "no_such_launch"


async def test_without_a_permit_the_reason_is_told(miner, keys):
    """A caller without a permit gets 403 with code and hint, signed."""
    start, _ = miner
    url = await start()
    async with SignedClient(keys["miner"]) as client:
        with pytest.raises(Forbidden) as caught:
            await client.call(
                "GET", url, "/inventory", Inventory, peer_hotkey_ss58=keys["miner"].ss58_address
            )
    assert (caught.value.code, caught.value.hint) == ("no_permit", "get stake")


async def test_an_unsigned_call_is_refused(miner):
    """Without a signature nothing of the node is told."""
    start, _ = miner
    status, body = await get(f"{await start()}/inventory")
    assert (status, body["code"]) == (401, "auth_malformed")


async def test_a_replay_is_refused_even_after_a_restart(miner, keys):
    """The same signed request counts once, also when the miner was restarted in between."""
    start, stop = miner
    headers = sign_request(
        keys["validator"],
        method="GET",
        path="/inventory",
        body=b"",
        receiver_ss58=keys["miner"].ss58_address,
        nonce_ns=time.time_ns(),
    )
    url = await start()
    assert (await get(f"{url}/inventory", headers))[0] == 200
    status, body = await get(f"{url}/inventory", headers)
    assert (status, body["code"]) == (401, "auth_replayed")
    await stop()
    status, body = await get(f"{await start()}/inventory", headers)
    assert (status, body["code"]) == (401, "auth_replayed")


class Caller:
    """Connections to the miner from addresses of the test's choice."""

    def __init__(self, url, stack):
        self._port = int(url.rpartition(":")[2])
        self._stack = stack

    async def connect(self, address):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(address, 0)
        )
        self._stack.callback(writer.close)
        return reader, writer

    async def ping(self, address):
        """Ask once over a new connection; return status, code and hint."""
        reader, writer = await self.connect(address)
        writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
        document = json.loads(body)
        return int(head.split()[1]), document.get("code"), bool(document.get("hint"))


async def test_one_address_has_so_many_connections_at_a_miner(miner):
    """The next one is told so; another address is served."""
    start, _ = miner
    async with AsyncExitStack() as stack:
        caller = Caller(await start(), stack)
        for _ in range(MAX_CONNECTIONS_PER_ADDRESS):
            await caller.connect("127.0.0.1")
        assert await caller.ping("127.0.0.1") == (429, "too_many_connections", True)
        assert await caller.ping("127.0.0.2") == (200, None, False)


async def test_a_miner_has_so_many_connections_in_all(miner):
    """Whoever comes next is told so, whatever its address."""
    start, _ = miner
    async with AsyncExitStack() as stack:
        caller = Caller(await start(), stack)
        for number in range(MAX_CONNECTIONS):
            await caller.connect(f"127.0.0.{2 + number // MAX_CONNECTIONS_PER_ADDRESS}")
        assert await caller.ping("127.0.0.1") == (503, "server_full", True)


async def test_an_idle_connection_to_a_miner_is_closed(miner):
    """Kept open after an answer for its time, and no longer."""
    start, _ = miner
    async with AsyncExitStack() as stack:
        caller = Caller(await start(limits=replace(LIMITS, keep_alive_s=1)), stack)
        reader, writer = await caller.connect("127.0.0.1")
        writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 60)).endswith(b'{"ok":true}')
