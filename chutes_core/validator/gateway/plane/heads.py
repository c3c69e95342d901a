"""Heads of responses as bytes.

Path: fast and bridge -> socket. Invariant: the bytes that the reference sends (uvicorn's
form): status line, date, the answer's own headers, then connection and transfer-encoding where they
apply.
"""

import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from chutes_core.base.errors import ProtocolError

CHUNKED: Final = b"transfer-encoding: chunked\r\n"
CLOSE: Final = b"connection: close\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
BODILESS: Final = (204, 304)

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


def status_line(status: int) -> bytes:
    """Return the first line of a response."""
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode()


def has_body(method: str, status: int) -> bool:
    """Tell whether a response has a body at all (RFC 9110, 6.4.1)."""
    return method != "HEAD" and status not in BODILESS


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return header lines; the caller has checked names and values.

    Raises:
        ProtocolError: ``bad_response``, one would break out of its line.
    """
    lines = [b"%b: %b\r\n" % pair for pair in headers]
    whole = b"".join(lines)
    if not whole.count(b"\n") == whole.count(b"\r") == len(lines) or b"\x00" in whole:
        raise ProtocolError("bad_response", "a header would break out of its line")
    return whole


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class DateLine:
    """The ``date`` header line, made once a second."""

    def __init__(self) -> None:
        self._at_s = 0
        self._line = b""

    def __call__(self) -> bytes:
        """Return the line of this second."""
        now_s = int(time.time())
        if now_s != self._at_s:
            self._at_s = now_s
            self._line = f"date: {formatdate(now_s, usegmt=True)}\r\n".encode()
        return self._line
