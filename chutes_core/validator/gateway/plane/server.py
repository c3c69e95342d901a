"""The server that owns the public port: accepts, bounds, sends each request on its way, stops.

Path: socket -> server -> http. It has the parts of uvicorn's interface that the neuron's lifetime
uses (`serve`, `started`, `should_exit`). Invariants: one sweep looks after every deadline, so that
no request costs a timer; after `should_exit` nothing new is taken, and what runs has `grace_s`.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from chutes_core.validator.gateway.asgi import AsgiApp
from chutes_core.validator.gateway.plane.bridge import Bridge
from chutes_core.validator.gateway.plane.heads import DateLine
from chutes_core.validator.gateway.plane.http import Connection
from chutes_core.validator.gateway.plane.reader import Heads
from chutes_core.validator.gateway.plane.request import Request
from chutes_core.wire.http_server import BACKLOG, HttpLimits

MAX_SWEEP_S = 0.5
MIN_SWEEP_S = 0.02


class Fast(Protocol):
    """What takes ordinary calls (`FastPath`)."""

    def begin(self, connection: Connection, request: Request) -> bool:
        """Take a request; False leaves everything as it was."""
        ...

    def is_call(self, request: Request) -> bool:
        """Tell whether a request is an invocation, whoever serves it."""
        ...


class Plane:
    """A server for one gateway.

    Args:
        app: answers what the fast path does not take (the front, and behind it the control plane).
        fast: takes ordinary calls.
        limits: of what precedes a request.
        body_timeout_s: for the rest of a small body, before ``app`` is asked, and between two
            pieces of one that the control plane reads.
        grace_s: for requests that run when the server is told to stop.
        proxies: addresses whose X-Forwarded-For is believed (comma-separated); None believes none.
        tls: ends here if given.
        unread_s: for a caller of the control plane to take some of an answer.
        shortest_s: the shortest time limit that the fast path has to keep.
    """

    def __init__(
        self,
        app: AsgiApp,
        fast: Fast,
        limits: HttpLimits | None = None,
        *,
        body_timeout_s: float = 60.0,
        grace_s: float = 20.0,
        proxies: str | None = None,
        tls: ssl.SSLContext | None = None,
        unread_s: float = 60.0,
        shortest_s: float = 60.0,
    ) -> None:
        self.limits = limits or HttpLimits()
        self.body_timeout_s = body_timeout_s
        self.unread_s = unread_s
        self.connections: set[Connection] = set()
        self.stopping = False
        self.started = False
        self.secure = tls is not None
        self.date = DateLine()
        self.heads = Heads()
        self.now: Callable[[], float] = float
        self.loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]
        # The types of uvicorn's middleware are its own copies of the ones that we use.
        self._app: AsgiApp = ProxyHeadersMiddleware(app, proxies) if proxies else app  # type: ignore[assignment,arg-type]
        self._fast = fast
        self._grace_s = grace_s
        self._tls = tls
        self._by_address: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._forced = asyncio.Event()
        self._empty = asyncio.Event()
        shortest = min(shortest_s, self.limits.head_timeout_s, self.limits.keep_alive_s)
        self._sweep_s = min(max(shortest / 5, MIN_SWEEP_S), MAX_SWEEP_S)

    @property
    def should_exit(self) -> bool:
        """Tell whether the server was told to stop."""
        return self._stop.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._stop.set()

    @property
    def force_exit(self) -> bool:
        """Tell whether the server was told not to wait for what runs."""
        return self._forced.is_set()

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        if value:
            self._forced.set()

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Serve bound sockets until told to stop."""
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        listeners = []
        for sock in sockets:  # no comprehension: mypyc compiles none that awaits
            listener = await self.loop.create_server(
                self._connection, sock=sock, backlog=BACKLOG, ssl=self._tls
            )
            listeners.append(listener)
        self.started = True
        self._sweeping = self.loop.call_later(self._sweep_s, self._sweep)
        try:
            await self._stop.wait()
        finally:
            for listener in listeners:
                listener.close()
            await self._end()
            self._sweeping.cancel()

    def _connection(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", Connection(self))

    # For connections.

    def joined(self, connection: Connection, network: str) -> int:
        """Count a connection; return how many its network has."""
        self.connections.add(connection)
        self._by_address[network] += 1
        return self._by_address[network]

    def left(self, connection: Connection, network: str | None) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        if network is not None and network in self._by_address:
            self._by_address[network] -= 1
            if not self._by_address[network]:
                del self._by_address[network]
        if not self.connections and self.stopping:
            self._empty.set()

    def answer(self, connection: Connection, request: Request) -> None:
        """Have a request answered."""
        if not self._fast.begin(connection, request):
            bridge = Bridge(connection, request, is_call=self.is_call(request))
            self._run(bridge, connection, self._app)

    def is_call(self, request: Request) -> bool:
        """Tell whether a request is an invocation, whoever serves it."""
        return self._fast.is_call(request)

    def go_on(self, connection: Connection, request: Request, app: AsgiApp) -> None:
        """Have an ASGI application answer a call that has been read already."""
        self._run(Bridge(connection, request, is_call=True, is_read=True), connection, app)

    # Inside.

    def _run(self, bridge: Bridge, connection: Connection, app: AsgiApp) -> None:
        connection.taken_by(bridge)
        task = self.loop.create_task(bridge.run(app))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep(self) -> None:
        # first, so that an error of one connection never ends everybody's deadlines
        self._sweeping = self.loop.call_later(self._sweep_s, self._sweep)
        now = self.now()
        late = [connection for connection in self.connections if connection.deadline <= now]
        for connection in late:
            connection.overdue(now)

    async def _end(self) -> None:
        """Close what idles, wait for what runs, cut what takes too long."""
        self.stopping = True
        for connection in tuple(self.connections):
            connection.stop()
        waits = [asyncio.ensure_future(self._emptied()), asyncio.ensure_future(self._forced.wait())]
        await asyncio.wait(waits, timeout=self._grace_s, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        for connection in tuple(self.connections):
            connection.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._emptied()

    async def _emptied(self) -> None:
        if self.connections:
            self._empty.clear()
            await self._empty.wait()
