"""May a URL that a stranger committed on chain be dialled?

Invariant: off a devnet every address that its host resolves to is a global one, so nobody makes a
neuron knock at machines of its operator's own network.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from chutes_core.base.errors import Forbidden, Invalid, Unavailable

_PLAIN = "its validator has to commit http(s)://host[:port] and nothing more"


async def check_url(url: str, *, allow_private: bool) -> None:
    """Check that a committed URL may be dialled.

    Raises:
        Invalid: ``bad_validator_url``.
        Forbidden: ``private_address``, one of its addresses is not global.
        Unavailable: ``unresolved``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise Invalid("bad_validator_url", f"{url!r} is no URL", hint=_PLAIN) from error
    plain = not (parts.username or parts.password or parts.path or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        raise Invalid("bad_validator_url", f"{url!r} is no plain http(s) URL", hint=_PLAIN)
    if allow_private:
        return
    for address in await _resolve(parts.hostname, port):
        if not ipaddress.ip_address(address).is_global:
            raise Forbidden(
                "private_address",
                f"{url} leads to {address}, which is not global",
                hint="its validator has to commit a public URL",
            )


async def _resolve(host: str, port: int) -> Sequence[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(
            "unresolved", f"{host} has no address", hint="check the name server of this host"
        ) from error
    return [str(entry[4][0]).partition("%")[0] for entry in found]
