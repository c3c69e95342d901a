"""The answer to one caller, over ASGI.

Path: exchange and front -> the caller. Invariant: chunks pass on as they come, but the answer is
complete for the caller only after `finish`: where a Content-Length tells its end in advance, the
chunk that would complete it is held back until then. So the journal is always written first.
"""

from collections.abc import Sequence

import orjson

from chutes_core.base.errors import ChutesError, Exhausted, ProtocolError, Unavailable
from chutes_core.validator.domain.statuses import status_of
from chutes_core.validator.gateway.asgi import Send
from chutes_core.validator.gateway.buckets import RateLimited, Standing
from chutes_core.validator.gateway.headers import promised_length
from chutes_core.validator.gateway.told import Pair, rate_pairs, timing_of_all
from chutes_core.wire.call import HEADER_INVOCATION

_NO_BODY = (204, 304)
UNAVAILABLE_RETRY_S = 5
UPGRADE_TO: tuple[Pair, ...] = (  # RFC 9110, 15.5.22; RFC 6455, 4.4
    (b"connection", b"upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
)


class Reply:
    """Sends one response with the invocation's id; ``method`` HEAD has no body.

    ``standing`` is the caller's, once it is known.
    """

    def __init__(self, send: Send, invocation_id: str, method: str) -> None:
        self._send = send
        self.invocation_id = invocation_id
        self.standing: Standing | None = None
        self._is_head = method == "HEAD"
        self._promised: int | None = None
        self._bodiless = False
        self._held = b""
        self.started = False
        self.bytes_out = 0

    @property
    def held_bytes(self) -> int:
        """Return how many bytes wait for `finish`."""
        return len(self._held)

    async def start(
        self, status: int, headers: Sequence[Pair], timing: Sequence[Pair] = ()
    ) -> None:
        """Send status and headers, and what is told of the call itself.

        Raises:
            ProtocolError: ``bad_response``, an unusable content-length.
        """
        self._promised = promised_length(headers)
        self._bodiless = self._is_head or status in _NO_BODY
        own = (HEADER_INVOCATION.encode(), self.invocation_id.encode())
        rate = [] if self.standing is None else rate_pairs(self.standing)
        told = [*headers, own, *rate, *timing]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": told})

    async def chunk(self, data: bytes) -> None:
        """Send a piece of the body at once, unless it would complete the answer.

        Raises:
            ProtocolError: ``bad_response``, more than the content-length.
        """
        if self._bodiless or not data:
            return
        if self._promised is None:
            await self._body(data, more=True)
            return
        whole = self.bytes_out + len(self._held) + len(data)
        if whole > self._promised:
            raise ProtocolError("bad_response", "the instance sent more than its content-length")
        if whole == self._promised:
            self._held = data
            return
        await self._body(data, more=True)

    def check_whole(self) -> None:
        """Raise unless the body has the promised length.

        Raises:
            ProtocolError: ``bad_response``, less than the content-length.
        """
        if self._promised is None or self._bodiless:
            return
        if self.bytes_out + len(self._held) != self._promised:
            raise ProtocolError("bad_response", "the instance sent less than its content-length")

    async def finish(self) -> None:
        """Send the last byte."""
        await self._body(self._held, more=False)

    async def json(
        self,
        status: int,
        value: object,
        headers: Sequence[Pair] = (),
        timing: Sequence[Pair] = (),
    ) -> None:
        """Answer with a JSON document of the gateway's own."""
        body = orjson.dumps(value)
        kind = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self.start(status, [*kind, *headers], timing)
        await self.chunk(body)
        await self.finish()

    async def error(self, error: ChutesError, total_us: int) -> None:
        """Answer with a typed error; ``total_us`` is how long the caller waited for it."""
        headers: list[Pair] = []
        if isinstance(error, RateLimited):
            self.standing = error.standing
        status = status_of(error)
        if isinstance(error, Exhausted):
            headers.append((b"retry-after", str(max(1, error.retry_after_s)).encode()))
        elif isinstance(error, Unavailable) and status == 503:
            headers.append((b"retry-after", str(UNAVAILABLE_RETRY_S).encode()))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if status == 426:
            headers += UPGRADE_TO
        if status == 413:
            headers.append((b"connection", b"close"))
        document = {"detail": error.message, "code": error.code, "hint": error.hint}
        await self.json(status, document, headers, [timing_of_all(total_us)])

    async def _body(self, data: bytes, *, more: bool) -> None:
        self.bytes_out += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
