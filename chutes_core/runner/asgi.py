"""A call's head as an ASGI scope, and an ASGI response start as a ResponseHead.

Path: executor (CALL) -> `scope_of` -> the chute -> `response_head` -> RESPONSE.
Invariant: headers of one hop (RFC 9110, 7.6.1) never cross the instance's border, and what goes
out keeps the limits of wire/call.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError

from chutes_core.base.errors import ProtocolError
from chutes_core.runner.orders import describe
from chutes_core.wire.call import HEADER_INVOCATION, CallHead, ResponseHead

HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
MAX_HEADERS_BYTES = 64 * 1024
# 2.3: the response of a caller who has left is cancelled by the framework's own listener
SPEC_VERSION = "2.3"

Scope = MutableMapping[str, Any]
AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def scope_of(head: CallHead) -> Scope:
    """Return the ASGI HTTP scope of a call; ``head.path`` is percent-encoded as on a wire."""
    headers = [
        (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in head.headers
        if name.lower() not in HOP_BY_HOP and name.lower() != HEADER_INVOCATION
    ]
    headers.append((HEADER_INVOCATION.encode(), head.invocation_id.encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
        "http_version": "1.1",
        "method": head.method.upper(),
        "scheme": "http",
        "path": unquote(head.path),
        "raw_path": head.path.encode(),
        "query_string": head.query.encode(),
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": None,
        "state": {},
    }


def response_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> ResponseHead:
    """Return the RESPONSE of a chute's ``http.response.start``.

    Raises:
        ProtocolError: ``bad_response``: over a limit, or not a status.
    """
    kept = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1"))
        for name, value in headers
        if name.decode("latin-1").lower() not in HOP_BY_HOP
    )
    if sum(len(name) + len(value) for name, value in kept) > MAX_HEADERS_BYTES:
        raise ProtocolError("bad_response", "the chute's response headers are too large")
    try:
        return ResponseHead(status=status, headers=kept)
    except ValidationError as error:
        raise ProtocolError("bad_response", describe(error)) from None
