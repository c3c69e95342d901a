"""Whose registry a name may be: what an engine would dial on behalf of somebody else.

Path: catalog/dockerfile checks what a Dockerfile names, miner/runtime/registries what a grant does.
Pure. Invariant: an address, however it is written, and a name of a local network, which one without
a dot is, too, are not public. A public name that resolves to a private address is not seen here.
"""

import ipaddress
import re

_NUMBERS = re.compile(r"^(0x[0-9a-f]+|\d+)(\.(0x[0-9a-f]+|\d+))*$", re.IGNORECASE)
_LOCAL = re.compile(r"^.*\.(local|internal|lan|home|home\.arpa|localhost)$", re.IGNORECASE)


def is_public_name(host: str) -> bool:
    """Tell whether a registry's host (without its port) is a name that anybody could resolve.

    >>> [is_public_name(host) for host in ("quay.io", "10.0.0.1", "0x7f.1", "nas.local", "nas")]
    [True, False, False, False, False]
    """
    host = host.rstrip(".")
    return "." in host and not (_is_address(host) or _LOCAL.match(host))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return _NUMBERS.match(host) is not None  # other ways to write an address
    return True
