"""The relay: the one door to this host's instances; it carries bytes and can read none of them.

A connection opens with a preamble (launch id, generation, nonce, MAC under the launch's ticket).
The relay checks the MAC before it dials the instance, on loopback or its bridge, forwards the
preamble, and then carries bytes both ways (`carrier`) with back-pressure and half-close until both
are done.
Invariant: nothing is dialled, and nothing is answered, for a caller without the ticket.

A replayed preamble is not refused: who replays one knows no root, and the instance draws a fresh
nonce, so the connection's keys are new and the replayer can neither read nor send a single frame;
it only holds one slot, which the limits bound. Limits: docs/limits.md.
"""

import asyncio
import socket
from dataclasses import dataclass, field

import anyio
from loguru import logger

from chutes_core.base.errors import ProtocolError
from chutes_core.miner.carrier import Pair
from chutes_core.wire.sealing import PREAMBLE_BYTES, Preamble

PREAMBLE_TIMEOUT_S = 5.0
DIAL_TIMEOUT_S = 5.0
IDLE_S = 1800.0
CLOSE_S = 5.0
MAX_CONNECTIONS = 2048
MAX_UNPROVEN = 128
MAX_PER_LAUNCH = 512
_BACKLOG = 1024


@dataclass(frozen=True)
class RelayLimits:
    """Bounds of one relay."""

    preamble_timeout_s: float = PREAMBLE_TIMEOUT_S
    dial_timeout_s: float = DIAL_TIMEOUT_S
    idle_s: float = IDLE_S
    connections: int = MAX_CONNECTIONS
    unproven: int = MAX_UNPROVEN
    per_launch: int = MAX_PER_LAUNCH


@dataclass
class _Route:
    ticket: bytes
    port: int
    host: str
    callers: "set[_Caller]" = field(default_factory=set)


@dataclass
class RelayCounts:
    """What the relay has seen; refused by reason."""

    carried: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Relay:
    """Listens on one port for all launches of the miner."""

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self.limits = limits or RelayLimits()
        self._routes: dict[str, _Route] = {}
        self._callers: set[_Caller] = set()
        self._unproven: dict[_Caller, None] = {}
        self._proven = 0
        self._server: asyncio.Server | None = None
        self._empty: asyncio.Future[None] | None = None
        self.counts = RelayCounts()

    async def start(self, listening: socket.socket) -> None:
        """Accept connections on a bound socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Caller(self, loop), sock=listening, backlog=_BACKLOG
        )

    def register(
        self, launch_id: str, *, ticket: bytes, port: int, host: str = "127.0.0.1"
    ) -> None:
        """Open the way to a launch's instance."""
        self._routes[launch_id] = _Route(ticket, port, host)

    def unregister(self, launch_id: str) -> None:
        """Close the way, and the connections that use it."""
        route = self._routes.pop(launch_id, None)
        for caller in tuple(route.callers) if route else ():
            caller.cut()

    async def close(self) -> None:
        """Stop listening and cut what is open."""
        if self._server is not None:
            self._server.close()
        dialling = [caller.dialling for caller in self._callers if caller.dialling is not None]
        for caller in tuple(self._callers):
            caller.cut()
        await asyncio.gather(*dialling, return_exceptions=True)
        if self._callers:
            self._empty = asyncio.get_running_loop().create_future()
            # Until the loop has told each side of its end; a stop never hangs on one it forgot.
            await asyncio.wait({self._empty}, timeout=CLOSE_S)
        self._routes.clear()

    def came(self, caller: "_Caller") -> None:
        """Take note of a connection; cut the oldest unproven one where there are too many.

        Friends send their preamble at once, so who has been silent longest is most likely none;
        refusing the newest would let a few silent strangers shut everybody out.
        """
        self._callers.add(caller)
        while len(self._unproven) >= self.limits.unproven:
            oldest = next(iter(self._unproven))
            del self._unproven[oldest]
            oldest.cut()
        self._unproven[caller] = None

    def spoke(self, caller: "_Caller", opening: bytes) -> _Route | None:
        """Return where a connection leads that has sent its preamble; it takes a place there."""
        self._unproven.pop(caller, None)
        try:
            preamble = Preamble.parse(opening)
        except ProtocolError as error:
            self.refuse(error.code)
            return None
        route = self._route_of(preamble)
        if route is not None:
            route.callers.add(caller)
            self._proven += 1
        return route

    def over(self, caller: "_Caller", route: _Route | None) -> None:
        """Take note that a connection has gone."""
        self._callers.discard(caller)
        self._unproven.pop(caller, None)
        if route is not None:
            route.callers.discard(caller)
            self._proven -= 1
        if self._empty is not None and not (self._callers or self._empty.done()):
            self._empty.set_result(None)

    def refuse(self, reason: str) -> None:
        """Count a refusal."""
        self.counts.refused[reason] = self.counts.refused.get(reason, 0) + 1
        logger.bind(code=reason).debug("relay refused a connection")

    def _route_of(self, preamble: Preamble) -> _Route | None:
        route = self._routes.get(preamble.launch_id)
        if route is None:
            self.refuse("unknown_launch")
        elif not preamble.is_from(route.ticket):
            self.refuse("bad_mac")
        elif len(route.callers) >= self.limits.per_launch:
            self.refuse("too_many_of_launch")
        elif self._proven >= self.limits.connections:
            self.refuse("too_many_connections")
        else:
            return route
        return None


class _Caller(asyncio.Protocol):
    """A connection from outside until its instance is connected; then a `Pair` carries it."""

    def __init__(self, relay: Relay, loop: asyncio.AbstractEventLoop) -> None:
        self._relay = relay
        self._loop = loop
        self._pair = Pair(loop, relay.limits.idle_s, self._over)
        self._opening = bytearray()
        self._route: _Route | None = None
        self._said = False
        self._timer: asyncio.TimerHandle | None = None
        self.dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the preamble, and not for long."""
        self._pair.outer.connection_made(transport)
        timeout_s = self._relay.limits.preamble_timeout_s
        self._timer = self._loop.call_later(timeout_s, self._refuse, "preamble_timeout")
        self._relay.came(self)

    def data_received(self, data: bytes) -> None:
        """Collect the preamble; once it is there and true, dial, and read no further meanwhile."""
        self._opening += data
        if self._said or len(self._opening) < PREAMBLE_BYTES:
            return
        self._cancel_timer()
        self._said = True
        self._route = self._relay.spoke(self, bytes(self._opening[:PREAMBLE_BYTES]))
        if self._route is None:
            self.cut()
            return
        assert self._pair.outer.transport is not None
        self._pair.outer.transport.pause_reading()
        self.dialling = self._loop.create_task(self._connect(self._route))

    def eof_received(self) -> bool:
        """Refuse who ends before it has said who it is."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget who left before it was connected."""
        self._cancel_timer()
        if not self._said:
            self._said = True
            self._relay.refuse("connection_lost")
        if self.dialling is not None:
            self.dialling.cancel()
        self._pair.outer.connection_lost(exc)

    def cut(self) -> None:
        """End the connection and what it leads to."""
        self._pair.cut()

    async def _connect(self, route: _Route) -> None:
        """Dial the instance, say the preamble and what came after it, and join the two."""
        pair = self._pair
        try:
            with anyio.fail_after(self._relay.limits.dial_timeout_s):
                await self._loop.create_connection(lambda: pair.inner, route.host, route.port)
        except OSError:  # TimeoutError is one
            self._refuse("instance_unreachable")
            return
        finally:
            self.dialling = None
        outer, inner = pair.outer.transport, pair.inner.transport
        assert outer is not None
        assert inner is not None
        if pair.over or outer.is_closing():
            self.cut()
            return
        self._relay.counts.carried += 1
        pair.join()
        outer.set_protocol(pair.outer)
        outer.resume_reading()  # first: an instance that takes too little stops it again
        inner.write(bytes(self._opening))
        self._opening.clear()

    def _refuse(self, reason: str) -> None:
        self._said = True
        self._relay.refuse(reason)
        self.cut()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> None:
        self._relay.over(self, self._route)
