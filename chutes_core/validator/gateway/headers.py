"""Which headers cross the border between a caller and strangers' code, in both directions.

Invariant: no credential, cookie or address of a caller reaches an instance, no hop-by-hop header
crosses at all (RFC 9110, 7.6.1), and a chute can neither set cookies on the validator's domain nor
speak in the validator's name.
"""

import re
from collections.abc import Iterable
from urllib.parse import quote

from chutes_core.base.errors import Invalid, ProtocolError
from chutes_core.wire.call import CallHead

_HOP = frozenset(
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
_NOT_TO_INSTANCE = _HOP | {
    "authorization",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "via",
    "x-api-key",
    "x-real-ip",
}
_NOT_TO_CALLER = _HOP | {"alt-svc", "date", "server", "set-cookie", "strict-transport-security"}
MAX_HEADERS = 98  # of a caller; two of the gateway's own are added (wire/call allows 100)
MAX_HEADERS_BYTES = 64 * 1024  # so that a CALL is always one frame
MAX_QUERY = 8192
MAX_LENGTH_DIGITS = 18  # of a content-length; int() itself refuses very long numbers

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # a token of RFC 9110, 5.6.2, in lower case
_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_OURS = ("x-chutes-", "x-ratelimit-")

RawHeaders = Iterable[tuple[bytes, bytes]]


def call_head(
    *, invocation_id: str, method: str, path: str, query: bytes, headers: RawHeaders, length: int
) -> CallHead:
    """Return the CALL of a request: what of it the instance may see.

    Raises:
        Invalid: ``too_many_headers`` or ``uri_too_long``.
    """
    kept = to_instance(headers)
    if len(kept) > MAX_HEADERS:
        raise Invalid("too_many_headers", f"at most {MAX_HEADERS} headers are passed on")
    if sum(len(name) + len(value) for name, value in kept) > MAX_HEADERS_BYTES:
        raise Invalid("too_many_headers", f"at most {MAX_HEADERS_BYTES} bytes of headers pass")
    if len(query) > MAX_QUERY:
        raise Invalid("uri_too_long", f"the query has more than {MAX_QUERY} bytes")
    return CallHead(
        invocation_id=invocation_id,
        method=method,
        path=quote(path),
        query=query.decode("latin-1"),
        headers=(*kept, ("content-length", str(length))),
    )


def to_instance(headers: RawHeaders) -> tuple[tuple[str, str], ...]:
    """Return a request's headers as an instance may see them, names in lower case."""
    pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    dropped = _NOT_TO_INSTANCE | _named_by_connection(pairs)
    return tuple((n, v) for n, v in pairs if n not in dropped and not _ours(n))


def to_caller(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return a response's headers as its caller may see them.

    Raises:
        ProtocolError: ``bad_response``: a name or value that would break out of its line.
    """
    pairs = [(name.lower(), value) for name, value in headers]
    dropped = _NOT_TO_CALLER | _named_by_connection(pairs)
    kept = [(n, v) for n, v in pairs if n not in dropped and not n.startswith(_OURS)]
    for name, value in kept:
        if not _NAME.fullmatch(name) or _UNSAFE.search(value):
            raise ProtocolError("bad_response", "the instance sent a header that is none")
    return [(n.encode(), v.encode("latin-1", "replace")) for n, v in kept]


def promised_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the Content-Length of a response, or None where it names none.

    Raises:
        ProtocolError: ``bad_response``: it is no number, or stands there twice.
    """
    values = [value for name, value in headers if name == b"content-length"]
    if not values:
        return None
    if len(values) > 1 or not values[0].isdigit() or len(values[0]) > MAX_LENGTH_DIGITS:
        raise ProtocolError("bad_response", "the instance sent no usable content-length")
    return int(values[0])


def _ours(name: str) -> bool:
    return name.startswith(("x-chutes-", "x-forwarded-"))


def _named_by_connection(pairs: Iterable[tuple[str, str]]) -> set[str]:
    named = ",".join(value for name, value in pairs if name == "connection")
    return {part.strip().lower() for part in named.split(",")}
