"""The door for an operator's Prometheus: GET /metrics, on an address of its own.

Path: monitor -> here -> health and gateway. Invariant: it is served on a loopback address alone,
and not at all unless ``metrics_port`` is set; it shows counts and codes, no names and no secrets.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable

from loguru import logger

from chutes_core.validator.gateway.asgi import Receive, Scope, Send
from chutes_core.wire.http_server import HttpLimits, new_server

HOST = "127.0.0.1"
MAX_CONNECTIONS = 16
_TEXT = (b"content-type", b"text/plain; version=0.0.4")

Source = Callable[[], str]


class MetricsPage:
    """An ASGI application; ``sources`` return texts of whole lines."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = tuple(sources)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        found = (scope["method"], scope["path"]) == ("GET", "/metrics")
        text = "".join(source() for source in self._sources) if found else ""
        body = text.encode()
        headers = [_TEXT, (b"content-length", str(len(body)).encode())]
        status = 200 if found else 404
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class MetricsDoor:
    """Serves the page from `open` to `close`; a ``port`` of 0 serves nothing."""

    def __init__(self, port: int, sources: Iterable[Source]) -> None:
        self._page = MetricsPage(sources)
        self._port = port
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int] | None:
        """Return where it is served, or None."""
        return None if self._socket is None else self._socket.getsockname()

    def open(self, *, any_port: bool = False) -> None:
        """Begin to serve, on the running loop.

        Args:
            any_port: take a free one, for a test.

        Raises:
            OSError: the port is taken.
        """
        if not (self._port or any_port):
            return
        self._socket = socket.create_server((HOST, self._port))
        limits = HttpLimits(max_connections=MAX_CONNECTIONS, max_per_address=None)
        self._server = new_server(self._page, limits, grace_s=1)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        logger.bind(address=self.address).info("Metrics are served")

    async def close(self) -> None:
        """Stop serving."""
        if self._task is None or self._socket is None:
            return
        self._server.should_exit = True
        await asyncio.gather(self._task, return_exceptions=True)
        self._socket.close()
        self._task = self._socket = None
