"""The client side of signed control calls between neurons (miner -> validator and back).

Invariant: no redirects are followed, every answer is bounded in size and time, and an answer is
only believed when the peer's hotkey signed it over this very request.
"""

import asyncio
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import aiohttp
from bittensor_core import Keypair
from pydantic import BaseModel, ValidationError

from chutes_core.base.errors import (
    ChutesError,
    Conflict,
    Exhausted,
    Forbidden,
    Invalid,
    NotFound,
    ProtocolError,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from chutes_core.wire.signing import sign_request, verify_reply

MAX_ANSWER_BYTES = 8 * 1024 * 1024
TIMEOUT_S = 10.0
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


class SignedClient:
    """Calls other neurons in the name of one hotkey."""

    def __init__(
        self,
        keypair: Keypair,
        *,
        timeout_s: float = TIMEOUT_S,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._keypair = keypair
        self._timeout_s = timeout_s
        self._now_ns = now_ns
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "SignedClient":
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

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
        try:
            return answer.model_validate_json(data)
        except ValidationError as error:
            text = f"{path} answered something else than {answer.__name__}"
            raise ProtocolError("bad_answer", text) from error

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
        if self._session is None:
            raise RuntimeError("SignedClient is used outside of `async with`")
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
        try:
            async with self._session.request(
                method, base_url + path, data=body, headers=headers, allow_redirects=False
            ) as response:
                data = await read_bounded(response, max_bytes)
                status, answered = response.status, response.headers
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise TimedOut("peer_timeout", f"{base_url} did not answer in time") from error
        except aiohttp.ClientError as error:
            raise Unavailable(
                "peer_unreachable", f"{base_url} cannot be reached: {error}"
            ) from error
        if status not in _UNPROVEN:
            verify_reply(
                answered,
                data,
                request_nonce=str(nonce_ns),
                status=status,
                peer_hotkey_ss58=peer_hotkey_ss58,
            )
        if status >= 400:
            raise _error_of(status, data)
        return data


async def read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the whole body of an answer.

    Raises:
        ProtocolError: ``answer_too_large``.
    """
    data = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        data += chunk
        if len(data) > max_bytes:
            raise ProtocolError("answer_too_large", f"a peer's answer is over {max_bytes} bytes")
    return bytes(data)


def _error_of(status: int, data: bytes) -> ChutesError:
    try:
        body = json.loads(data)
        detail, code, hint = str(body["detail"]), str(body["code"]), str(body.get("hint", ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        return ProtocolError("bad_answer", f"the peer answered {status} without an error body")
    return _BY_STATUS.get(status, Unavailable)(code, detail, hint=hint)
