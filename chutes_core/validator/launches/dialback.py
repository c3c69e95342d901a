"""Dials a miner back at its own request, so that its operator learns what is reached from outside.

Path: POST /miner/reachable -> here. Invariants: only the address that the finalized chain shows for
the caller is dialled, or, where it shows none, the one that the call came from; off a devnet only
global ones; what comes back is one word, and a miner may ask a few times a minute.
"""

import asyncio
import contextlib
from typing import Protocol

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict
from chutes_core.validator.gateway.buckets import Buckets
from chutes_core.validator.launches.ports import Miner
from chutes_core.wire.control import DialBack, DialBackRequest, DialResult

DIAL_TIMEOUT_S = 3.0
BURST = 6
_MOST_BYTES = 4096
_PING = b"GET /ping HTTP/1.1\r\nhost: miner\r\nconnection: close\r\n\r\n"
_PONG = b'"ok":true'


class Addresses(Protocol):
    """What the network knows of a caller's address."""

    def miner(self, hotkey: str) -> Miner | None:
        """Return a registered neuron; its host is empty where it may not be dialled."""
        ...

    def may_dial(self, address: str) -> bool:
        """Tell whether an address may be dialled from here."""
        ...


class DialBacks:
    """Answers the question of a miner."""

    def __init__(self, network: Addresses, clock: Clock) -> None:
        self._network = network
        self._clock = clock
        self._buckets = Buckets(per_s=1, burst=BURST, clock=clock)

    async def dial(self, hotkey: str, came_from: str, request: DialBackRequest) -> DialBack:
        """Dial both ports and say what came of it.

        Raises:
            Exhausted: ``rate_limited``.
            Conflict: ``not_serving``: there is no address that may be dialled.
        """
        self._buckets.take(hotkey)
        miner = self._network.miner(hotkey)
        host = miner.host if miner else ""
        if not host and came_from and self._network.may_dial(came_from):
            host = came_from
        if not host:
            raise Conflict(
                "not_serving",
                "the finalized chain shows no axon of this hotkey, and the call came from an"
                " address that is not dialled",
                hint="start the miner once, so that it announces its address",
            )
        http, relay = await asyncio.gather(
            _dial(host, request.port, _PING), _dial(host, request.relay_port, b"")
        )
        return DialBack(host=host, port=http, relay_port=relay, server_time_s=self._clock.now_s())


async def _dial(host: str, port: int, say: bytes) -> DialResult:
    """Connect; where there is something to say, say it and look for the miner's answer."""
    try:
        return await asyncio.wait_for(_talk(host, port, say), DIAL_TIMEOUT_S)
    except asyncio.TimeoutError:
        return "timeout"
    except OSError:
        return "refused"


async def _talk(host: str, port: int, say: bytes) -> DialResult:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        if not say:
            return "ok"
        writer.write(say)
        answer = bytearray()
        while len(answer) < _MOST_BYTES and (piece := await reader.read(_MOST_BYTES)):
            answer += piece
        return "ok" if _PONG in bytes(answer).replace(b" ", b"") else "other"
    finally:
        with contextlib.suppress(OSError):
            writer.close()
