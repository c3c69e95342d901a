"""Typed error -> HTTP status: the one map that the gateway and the control plane share.

Invariant: every family of base.errors has a status; a code in `_BY_CODE` is finer than its family.
"""

from chutes_core.base.errors import (
    ChainError,
    ChutesError,
    Conflict,
    Denied,
    Exhausted,
    Forbidden,
    Invalid,
    NotFound,
    PaymentRequired,
    ProtocolError,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

_BY_CODE = {
    "body_timeout": 408,
    "chute_error": 500,
    "uri_too_long": 414,
    "unsupported_media_type": 415,
    "pickled_arguments": 415,
    "too_many_headers": 431,
    "bad_handshake": 400,
    "websocket_version": 426,
    "websocket_unsupported": 501,
}

_BY_FAMILY: tuple[tuple[type[ChutesError], int], ...] = (
    (Unauthenticated, 401),
    (PaymentRequired, 402),
    (Forbidden, 403),
    (Denied, 403),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (Invalid, 422),
    (Exhausted, 429),
    (TimedOut, 504),
    (Unavailable, 503),
    (ProtocolError, 502),
    (ChainError, 502),
)


def status_of(error: ChutesError) -> int:
    """Return the HTTP status of a typed error; 500 for one outside every family.

    >>> status_of(PaymentRequired("insufficient_balance", "no credit"))
    402
    """
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    for family, status in _BY_FAMILY:
        if isinstance(error, family):
            return status
    return 500
