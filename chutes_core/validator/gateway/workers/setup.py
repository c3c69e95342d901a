"""What a worker is told before anything else: who it is, where it serves, within which bounds.

Invariant: bounds that hold for the whole gateway are divided among the workers, rounded up.
"""

import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from chutes_core.base.errors import Invalid
from chutes_core.base.units import ceil_div
from chutes_core.validator.gateway.limits import GatewayLimits
from chutes_core.wire.http_server import HttpLimits

_DIVIDED = (
    "max_calls",
    "max_buffered_bytes",
    "max_waiting_per_chute",
    "max_waiting",
    "max_websockets_per_key",
)


@dataclass(frozen=True)
class Setup:
    """How workers serve; ``worker`` and the place are set for each.

    Attributes:
        workers: how many there are.
        journal_folder: one directory for each worker lies in it.
        grace_s: for calls that run when a worker is told to stop.
        proxies: addresses whose X-Forwarded-For is believed; None believes none.
        access_log: one line for each call.
        tls_certificate, tls_key: PEM files; None where TLS ends elsewhere.
    """

    workers: int
    journal_folder: str
    limits: GatewayLimits
    http: HttpLimits
    grace_s: float
    domain: str | None = None
    proxies: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    log_level: str = "INFO"
    json_logs: bool = False
    access_log: bool = False
    worker: str = ""
    host: str = ""
    port: int = 0

    @property
    def journal(self) -> Path:
        """Return the directory of the worker's journal."""
        return Path(self.journal_folder) / self.worker

    def of(self, worker: str, host: str, port: int) -> dict[str, Any]:
        """Return what one worker is told."""
        share = {name: ceil_div(getattr(self.limits, name), self.workers) for name in _DIVIDED}
        limits = replace(self.limits, **share)
        connections = ceil_div(self.http.max_connections, self.workers)
        http = replace(self.http, max_connections=connections)
        mine = replace(self, worker=worker, host=host, port=port, limits=limits, http=http)
        return asdict(mine)


def read_setup(told: Mapping[str, Any]) -> Setup:
    """Return what the main process told.

    The limits are made here: pydantic cannot make objects of compiled classes.
    """
    limits = {"limits": GatewayLimits(**told["limits"]), "http": HttpLimits(**told["http"])}
    return TypeAdapter(Setup).validate_python(dict(told) | limits)


def tls_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Return the TLS server's context; None without a certificate.

    Raises:
        Invalid: ``bad_tls``, the certificate or its key cannot be used.
    """
    if certificate is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise Invalid(
            "bad_tls",
            f"{certificate} and {key} make no TLS server: {error}",
            hint="a PEM chain, the server's certificate first, and its PEM key without password",
        ) from error
    return context
