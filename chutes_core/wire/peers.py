"""The client side of signed control calls between neurons (miner -> validator and back).

Invariant: no redirects are followed, every answer is bounded in size and time, and an answer is
only believed when the peer's hotkey signed it over this very request.
"""

import json
import time
from collections.abc import Callable
from typing import TypeVar

from bittensor_core import Keypair
from pydantic import BaseModel

from chutes_core.base.errors import (
    ChutesError,
    Conflict,
    Exhausted,
    Forbidden,
    Invalid,
    NotFound,
    ProtocolError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from chutes_core.wire.peer_http import MAX_ANSWER_BYTES, TIMEOUT_S, PeerSession, parse
from chutes_core.wire.signing import sign_request, verify_reply

_ModelT = TypeVar("_ModelT", bound=BaseModel)
_BY_STATUS: dict[int, type[ChutesError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: Invalid,
    429: Exhausted,
}
# Answered before the caller was proven, so there is no nonce to sign over. Whoever can put such an
# answer on the wire could as well have cut the connection.
_UNPROVEN = frozenset((400, 401, 408, 413, 429, 431, 503))


class SignedClient(PeerSession):
    """Calls other neurons in the name of one hotkey."""

    def __init__(
        self,
        keypair: Keypair,
        *,
        timeout_s: float = TIMEOUT_S,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(timeout_s=timeout_s)
        self._keypair = keypair
        self._now_ns = now_ns

    async def call(
        self,
        method: str,
        base_url: str,
        path: str,
        answer: type[_ModelT],
        *,
        peer_hotkey_ss58: str,
        body: BaseModel | None = None,
    ) -> _ModelT:
        """Make one signed call and return its verified answer.

        Raises:
            Unavailable, TimedOut: the peer does not answer.
            ProtocolError: the answer is unsigned, too large, or not what was asked for.
            ChutesError: the peer's own typed error, with its code and hint.
        """
        raw = body.model_dump_json().encode() if body is not None else b""
        data = await self.fetch(method, base_url, path, peer_hotkey_ss58=peer_hotkey_ss58, body=raw)
        return parse(data, answer, of=path)

    async def fetch(
        self,
        method: str,
        base_url: str,
        path: str,
        *,
        peer_hotkey_ss58: str,
        body: bytes = b"",
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> bytes:
        """Make one signed call and return the verified raw bytes of its answer."""
        nonce_ns = self._now_ns()
        headers = sign_request(
            self._keypair,
            method=method,
            path=path,
            body=body,
            receiver_ss58=peer_hotkey_ss58,
            nonce_ns=nonce_ns,
        )
        if body:
            headers["Content-Type"] = "application/json"
        got = await self.exchange(
            method, base_url + path, headers=headers, body=body, max_bytes=max_bytes
        )
        if got.status not in _UNPROVEN:
            verify_reply(
                got.headers,
                got.body,
                request_nonce=str(nonce_ns),
                status=got.status,
                peer_hotkey_ss58=peer_hotkey_ss58,
            )
        if got.status >= 400:
            raise _error_of(got.status, got.body)
        return got.body


def _error_of(status: int, data: bytes) -> ChutesError:
    try:
        body = json.loads(data)
        detail, code, hint = str(body["detail"]), str(body["code"]), str(body.get("hint", ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        return ProtocolError("bad_answer", f"the peer answered {status} without an error body")
    return _BY_STATUS.get(status, Unavailable)(code, detail, hint=hint)
