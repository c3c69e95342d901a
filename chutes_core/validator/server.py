"""One uvicorn server on a socket that was bound before, without signal handlers of its own."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from chutes_core.base.errors import Unavailable

BACKLOG = 2048
GRACE_S = 20
KEEP_ALIVE_S = 65
MAX_CONNECTIONS = 4096


class Server(uvicorn.Server):
    """Leaves signals to the neuron's entrance, which stops everything in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Bind a listening address; port 0 takes a free one.

    Raises:
        Unavailable: ``port_taken``.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise Unavailable(
            "port_taken", f"{host}:{port} cannot be bound: {error}", hint="choose another port"
        ) from error
    return sock


def server(app: Any) -> Server:
    """Return a server for an ASGI application; it serves what its own gateway bounds."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=MAX_CONNECTIONS,
    )
    return Server(config)
