"""Many clients of one devnet at once; used by its load test and by tests/bench/devnet.py."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from bittensor_core import Keypair
from websockets.asyncio.client import ClientConnection, connect

from chutes_core.base.units import RAO_PER_TAO
from chutes_core.devnet.codec import Codec
from chutes_core.devnet.launch import DevnetProcess
from chutes_core.devnet.metadata import DEFAULT_METADATA, load_metadata, patch_metadata

ANSWER_TIMEOUT_S = 30.0

_PROBE_S = 0.2


@dataclass(frozen=True)
class Load:
    """What is asked of the devnet.

    Args:
        clients: each with a websocket and an account of its own.
        rate: extrinsics a second, of all clients together; 0 for none.
        seconds: how long.
    """

    clients: int
    rate: int
    seconds: float


@dataclass
class Seen:
    """What came of it; times in milliseconds."""

    sent: int = 0
    included: int = 0
    refused: int = 0
    sent_per_s: float = 0.0
    blocks: int = 0
    slowest_block_ms: int = 0
    answer_ms_median: float = 0.0
    answer_ms_worst: float = 0.0
    unknown_calls_refused: int = 0
    cpu_percent: int = 0


@dataclass
class Client:
    """One connection: requests by id, heads as they come."""

    socket: ClientConnection
    key: Keypair
    nonce: int = 0
    heads: list[float] = field(default_factory=list)
    _waiting: dict[int, "asyncio.Future[dict[str, Any]]"] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    async def listen(self) -> None:
        """Hand answers to those who wait; note when heads arrive."""
        async for text in self.socket:
            message = json.loads(text)
            if "id" in message:
                self._waiting.pop(message["id"]).set_result(message)
            elif message["method"] == "chain_newHead":
                self.heads.append(time.monotonic())

    async def ask(self, method: str, *params: Any) -> dict[str, Any]:
        """Send a request and return its whole answer."""
        identity = next(self._ids)
        answer = asyncio.get_running_loop().create_future()
        self._waiting[identity] = answer
        request = {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}
        await self.socket.send(json.dumps(request))
        return await asyncio.wait_for(answer, ANSWER_TIMEOUT_S)


async def run_load(devnet: DevnetProcess, load: Load) -> Seen:
    """Load a devnet that was started with dev_controls and return what was seen."""
    codec = Codec(patch_metadata(load_metadata(DEFAULT_METADATA), block_ms=1_000))
    keys = [Keypair.create_from_uri(f"//Load//{number}") for number in range(load.clients)]
    controls = devnet.controls()
    await asyncio.to_thread(controls.set_storage, _endowed([key.ss58_address for key in keys]))
    clients = [Client(await connect(devnet.url, max_size=None), key) for key in keys]
    listeners = [asyncio.create_task(client.listen()) for client in clients]
    seen = Seen()
    for client in clients:
        await client.ask("chain_subscribeNewHeads")
        client.nonce = (await client.ask("account_nextIndex", client.key.ss58_address))["result"]
    raws = _signed(codec, clients, load, devnet.genesis_hash)
    first = await asyncio.to_thread(controls.best)
    began, cpu = time.monotonic(), _cpu_s(devnet.pid)
    answers: list[float] = []
    sending = [_send(c, own, load, seen, answers) for c, own in zip(clients, raws, strict=True)]
    await asyncio.gather(*sending, _probe(clients[0], load, seen, answers))
    wall = time.monotonic() - began
    seen.cpu_percent = round(100 * (_cpu_s(devnet.pid) - cpu) / wall)
    seen.sent_per_s = round(seen.sent / wall, 1)
    await _count_included(clients[0], seen, first, {bytes(raw) for own in raws for raw in own})
    _sum_up(clients[0], seen, answers)
    for client, listener in zip(clients, listeners, strict=True):
        await client.socket.close()
        await listener
    return seen


def _endowed(addresses: list[str]) -> dict[str, Any]:
    data = {"free": 1_000 * RAO_PER_TAO, "reserved": 0, "frozen": 0, "flags": 0}
    record = {"consumers": 0, "providers": 1, "sufficients": 0, "data": data}
    nonce = {"nonce": 0}
    return {"System": {"Account": [[[address], {**record, **nonce}] for address in addresses]}}


def _signed(
    codec: Codec, clients: list[Client], load: Load, genesis_hash: str
) -> list[list[bytes]]:
    genesis = bytes.fromhex(genesis_hash[2:])
    each = round(load.rate * load.seconds / load.clients)
    signed = []
    for client in clients:
        dest = clients[(clients.index(client) + 1) % len(clients)].key.ss58_address
        call = codec.compose_call(
            "Balances", "transfer_keep_alive", {"dest": dest, "value": RAO_PER_TAO // 1_000}
        )
        own = []
        for nonce in range(client.nonce, client.nonce + each):
            extra = {"era": "00", "nonce": nonce, "tip": 0, "tip_asset_id": None}
            payload = codec.runtime.signature_payload(
                call, **extra, genesis_hash=genesis, era_block_hash=genesis
            )
            raw, _ = codec.runtime.encode_signed_extrinsic(
                call,
                public_key=client.key.public_key,
                signature=client.key.sign(bytes(payload)),
                signature_version=1,
                **extra,
            )
            own.append(bytes(raw))
        signed.append(own)
    return signed


async def _send(
    client: Client, own: list[bytes], load: Load, seen: Seen, answers: list[float]
) -> None:
    began = time.monotonic()
    for number, raw in enumerate(own):
        due = began + number * load.clients / load.rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        asked = time.monotonic()
        answer = await client.ask("author_submitExtrinsic", "0x" + raw.hex())
        answers.append(time.monotonic() - asked)
        seen.sent += 1
        seen.refused += "error" in answer


async def _probe(client: Client, load: Load, seen: Seen, answers: list[float]) -> None:
    """Ask for what does not exist, all the while; each must be refused at once."""
    until = time.monotonic() + load.seconds
    while time.monotonic() < until:
        for method, params in (("no_such_method", ()), ("state_call", ("NoApi_method", "0x"))):
            asked = time.monotonic()
            answer = await client.ask(method, *params)
            answers.append(time.monotonic() - asked)
            seen.unknown_calls_refused += "devnet has no" in answer["error"]["message"]
        await asyncio.sleep(_PROBE_S)


async def _count_included(client: Client, seen: Seen, first: int, raws: set[bytes]) -> None:
    """Walk the blocks until all that was taken is found, or two more blocks bring nothing."""
    number, empty = first + 1, 0
    while seen.included < seen.sent - seen.refused and empty < 2:
        block_hash = (await client.ask("chain_getBlockHash", number))["result"]
        if block_hash is None:
            await asyncio.sleep(_PROBE_S)
            continue
        block = (await client.ask("chain_getBlock", block_hash))["result"]["block"]
        found = sum(bytes.fromhex(raw[2:]) in raws for raw in block["extrinsics"])
        seen.included += found
        empty = 0 if found or not seen.included else empty + 1
        number += 1


def _sum_up(client: Client, seen: Seen, answers: list[float]) -> None:
    gaps = [later - earlier for earlier, later in zip(client.heads, client.heads[1:], strict=False)]
    seen.blocks = len(client.heads)
    seen.slowest_block_ms = round(1_000 * max(gaps, default=0))
    ordered = sorted(answers)
    seen.answer_ms_median = round(1_000 * ordered[len(ordered) // 2], 1)
    seen.answer_ms_worst = round(1_000 * ordered[-1], 1)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
