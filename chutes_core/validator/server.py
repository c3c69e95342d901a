"""The validator's port and the server on it: the data plane, its workers, or the reference."""

import socket
import ssl
import time

from chutes_core.base.errors import Unavailable
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.plane.server import Plane
from chutes_core.validator.gateway.workers.crew import Crew
from chutes_core.validator.gateway.workers.setup import tls_context
from chutes_core.validator.settings import ValidatorSettings
from chutes_core.wire.http_server import HttpLimits, Server, new_server

GRACE_S = 20
OLD_WORKERS_S = 5.0  # those of a validator that was killed end at once, and need a moment


def bind_shared(host: str, port: int) -> socket.socket:
    """Bind an address that workers will listen on; blocks for a moment while it is in use.

    Raises:
        Unavailable: ``port_taken``: another validator must not get half of the connections.
    """
    until_s = time.monotonic() + OLD_WORKERS_S
    while port:
        try:
            bind(host, port).close()
            break
        except Unavailable:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)
    return bind(host, port, shared=True)


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Bind a listening address; port 0 takes a free one.

    Raises:
        Unavailable: ``port_taken``.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise Unavailable(
            "port_taken", f"{host}:{port} cannot be bound: {error}", hint="choose another port"
        ) from error
    return sock


def server(gateway: Gateway | Crew, settings: ValidatorSettings) -> Server | Plane | Crew:
    """Return a server for the gateway.

    Raises:
        Invalid: ``bad_tls``, the certificate or its key cannot be used.
    """
    tls = _tls(settings)
    if isinstance(gateway, Crew):
        return gateway
    limits, proxies = http_limits(settings), proxies_of(settings)
    if settings.data_plane == "reference":
        return new_server(gateway.front, limits, grace_s=GRACE_S, proxies=proxies)
    return gateway.plane(limits, grace_s=GRACE_S, proxies=proxies, tls=tls)


def http_limits(settings: ValidatorSettings) -> HttpLimits:
    """Return the bounds of what precedes a request.

    Behind a proxy every connection comes from the proxy: it bounds its callers itself, and its
    word on their addresses counts. Elsewhere no caller may name an address.
    """
    return HttpLimits(
        max_connections=settings.max_connections,
        max_per_address=None if settings.behind_proxy else settings.max_connections_per_address,
    )


def proxies_of(settings: ValidatorSettings) -> str | None:
    """Return whose word on a caller's address counts; None where nobody's does."""
    return settings.proxy_addresses if settings.behind_proxy else None


def _tls(settings: ValidatorSettings) -> ssl.SSLContext | None:
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return None
    return tls_context(str(certificate), str(key))
