"""The validator's listening socket and the server on it: the data plane, or the reference."""

import socket
import ssl

from chutes_core.base.errors import Invalid, Unavailable
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.plane.server import Plane
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


def server(gateway: Gateway, settings: ValidatorSettings) -> Server | Plane:
    """Return a server for the gateway.

    Behind a proxy every connection comes from the proxy: it bounds its callers itself, and its
    word on their addresses counts. Elsewhere no caller may name an address.

    Raises:
        Invalid: ``bad_tls``, the certificate or its key cannot be used.
    """
    behind = settings.behind_proxy
    limits = HttpLimits(
        max_connections=settings.max_connections,
        max_per_address=None if behind else settings.max_connections_per_address,
    )
    proxies = settings.proxy_addresses if behind else None
    if settings.data_plane == "reference":
        return new_server(gateway.front, limits, grace_s=GRACE_S, proxies=proxies)
    return gateway.plane(limits, grace_s=GRACE_S, proxies=proxies, tls=_tls(settings))


def _tls(settings: ValidatorSettings) -> ssl.SSLContext | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except OSError as error:  # ssl.SSLError is one
        raise Invalid(
            "bad_tls",
            f"{settings.tls_certificate} and {settings.tls_key} make no TLS server: {error}",
            hint="a PEM chain, the server's certificate first, and its PEM key without password",
        ) from error
    return context
