"""The relay: the one door to this host's instances; it carries bytes and can read none of them.

A connection opens with a preamble (launch id, generation, nonce, MAC under the launch's ticket).
The relay checks the MAC before it dials the instance, on loopback or its bridge, forwards the
preamble, and then carries bytes both ways with back-pressure and half-close until both are done.
Invariant: nothing is dialled, and nothing is answered, for a caller without the ticket.

A replayed preamble is not refused: who replays one knows no root, and the instance draws a fresh
nonce, so the connection's keys are new and the replayer can neither read nor send a single frame;
it only holds one slot, which the limits bound. Limits: docs/limits.md.
"""

import asyncio
import socket
from dataclasses import dataclass, field

from loguru import logger

from chutes_core.base.errors import ChutesError
from chutes_core.wire.connection import read_preamble
from chutes_core.wire.sealing import Preamble

PREAMBLE_TIMEOUT_S = 5.0
DIAL_TIMEOUT_S = 5.0
IDLE_S = 1800.0
MAX_CONNECTIONS = 2048
MAX_UNPROVEN = 128
MAX_PER_LAUNCH = 512
_CHUNK_BYTES = 64 * 1024


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
    writers: set[asyncio.StreamWriter] = field(default_factory=set)


@dataclass
class RelayCounts:
    """What the relay has seen; refused by reason."""

    carried: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Relay:
    """Listens on one port for all launches of the miner."""

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self._limits = limits or RelayLimits()
        self._routes: dict[str, _Route] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unproven: dict[asyncio.StreamWriter, None] = {}
        self._proven = 0
        self._server: asyncio.Server | None = None
        self.counts = RelayCounts()

    async def start(self, listening: socket.socket) -> None:
        """Accept connections on a bound socket."""
        self._server = await asyncio.start_server(self._accept, sock=listening)

    def register(
        self, launch_id: str, *, ticket: bytes, port: int, host: str = "127.0.0.1"
    ) -> None:
        """Open the way to a launch's instance."""
        self._routes[launch_id] = _Route(ticket, port, host)

    def unregister(self, launch_id: str) -> None:
        """Close the way, and the connections that use it."""
        route = self._routes.pop(launch_id, None)
        for writer in route.writers if route else ():
            writer.transport.abort()

    async def close(self) -> None:
        """Stop listening and cut what is open."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._routes.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            return  # closing: asyncio's own callback would log a cancelled handler as an error
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._make_room()
            self._unproven[writer] = None
            preamble = await read_preamble(reader, self._limits.preamble_timeout_s)
        except ChutesError as error:
            self._refuse(error.code)
            return
        finally:
            self._unproven.pop(writer, None)
        route = self._route_of(preamble)
        if route is None:
            return
        route.writers.add(writer)
        self._proven += 1
        try:
            await self._connect(route, preamble, (reader, writer))
        finally:
            self._proven -= 1
            route.writers.discard(writer)

    def _make_room(self) -> None:
        """Cut the oldest unproven connection where there are too many.

        Friends send their preamble at once, so who has been silent longest is most likely none;
        refusing the newest would let a few silent strangers shut everybody out.
        """
        while len(self._unproven) >= self._limits.unproven:
            oldest = next(iter(self._unproven))
            del self._unproven[oldest]
            oldest.transport.abort()

    async def _connect(self, route: _Route, preamble: Preamble, outer: "_End") -> None:
        try:
            inner_reader, inner_writer = await asyncio.wait_for(
                asyncio.open_connection(route.host, route.port), self._limits.dial_timeout_s
            )
        except (OSError, asyncio.TimeoutError):
            self._refuse("instance_unreachable")
            return
        self.counts.carried += 1
        try:
            inner_writer.write(preamble.to_bytes())
            await _Carrier(self._limits.idle_s).both_ways(outer, (inner_reader, inner_writer))
        finally:
            inner_writer.transport.abort()

    def _route_of(self, preamble: Preamble) -> _Route | None:
        route = self._routes.get(preamble.launch_id)
        if route is None:
            self._refuse("unknown_launch")
        elif not preamble.is_from(route.ticket):
            self._refuse("bad_mac")
        elif len(route.writers) >= self._limits.per_launch:
            self._refuse("too_many_of_launch")
        elif self._proven >= self._limits.connections:
            self._refuse("too_many_connections")
        else:
            return route
        return None

    def _refuse(self, reason: str) -> None:
        self.counts.refused[reason] = self.counts.refused.get(reason, 0) + 1
        logger.bind(code=reason).debug("relay refused a connection")


_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Carrier:
    """Carries bytes between two ends until both have ended or nothing moves for ``idle_s``."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()

    async def both_ways(self, left: _End, right: _End) -> None:
        """Return when the connection is over; errors of either side end both."""
        tasks = {
            asyncio.ensure_future(self._carry(left[0], right[1])),
            asyncio.ensure_future(self._carry(right[0], left[1])),
        }
        try:
            while tasks:
                rest_s = self._moved_at + self._idle_s - self._loop.time()
                done, tasks = await asyncio.wait(
                    tasks, timeout=max(0.0, rest_s), return_when=asyncio.FIRST_COMPLETED
                )
                if any(not task.result() for task in done):
                    return
                if not done and self._loop.time() >= self._moved_at + self._idle_s:
                    return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Return True after an orderly end (which is passed on), False after a broken one."""
        try:
            while data := await reader.read(_CHUNK_BYTES):
                self._moved_at = self._loop.time()
                writer.write(data)
                await writer.drain()
                self._moved_at = self._loop.time()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            return False
        return True
