"""The validator's listening socket and the server on it; wire/http_server bounds what it takes."""

import socket
from typing import Any

from chutes_core.base.errors import Unavailable
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.wire.http_server import HttpLimits, Server, new_server

GRACE_S = 20


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


def server(app: Any, settings: ValidatorSettings) -> Server:
    """Return a server for the gateway.

    Behind a proxy every connection comes from the proxy: it bounds its callers itself, and its
    word on their addresses counts. Elsewhere no caller may name an address.
    """
    behind = settings.behind_proxy
    limits = HttpLimits(
        max_connections=settings.max_connections,
        max_per_address=None if behind else settings.max_connections_per_address,
    )
    proxies = settings.proxy_addresses if behind else None
    return new_server(app, limits, grace_s=GRACE_S, proxies=proxies)
