"""HTTP to another neuron: one pool of connections, and answers bounded in size and time.

Below peers.py (signed calls); alone it fetches what carries its signatures inside. Invariant: no
redirect is followed, no proxy and no cookie of the environment is used, and whatever goes wrong on
the way is a typed error.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError
from typing_extensions import Self

from chutes_core.base.errors import ProtocolError, TimedOut, Unavailable

MAX_ANSWER_BYTES = 8 * 1024 * 1024
TIMEOUT_S = 10.0
_ModelT = TypeVar("_ModelT", bound=BaseModel)


@dataclass(frozen=True)
class Answer:
    """What a peer answered, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class PeerSession:
    """A pool of connections; use as an async context manager.

    Args:
        timeout_s: for one exchange, from dialling to the answer's last byte.
    """

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
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

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """Send one request and return its answer, whatever its status.

        Raises:
            TimedOut: ``peer_timeout``. Unavailable: ``peer_unreachable``.
            ProtocolError: ``answer_too_large``.
        """
        if self._session is None:
            raise RuntimeError(f"{type(self).__name__} is used outside of `async with`")
        try:
            async with self._session.request(
                method, url, data=body or None, headers=headers, allow_redirects=False
            ) as response:
                data = await read_bounded(response, max_bytes)
                return Answer(response.status, response.headers, data)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise TimedOut("peer_timeout", f"{url} did not answer in time") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise Unavailable("peer_unreachable", f"{url} cannot be reached: {error}") from error

    async def get(
        self, url: str, answer: type[_ModelT], *, max_bytes: int = MAX_ANSWER_BYTES
    ) -> _ModelT:
        """Fetch what needs no signature over HTTP, as it carries its own inside.

        Raises:
            ProtocolError: ``bad_answer``. Others: as `exchange`.
        """
        got = await self.exchange("GET", url, max_bytes=max_bytes)
        if got.status != 200:
            raise Unavailable("bad_answer", f"{url} answered {got.status}")
        return parse(got.body, answer, of=url)


def parse(data: bytes, answer: type[_ModelT], *, of: str) -> _ModelT:
    """Return the answer of ``of`` as what it should be.

    Raises:
        ProtocolError: ``bad_answer``.
    """
    try:
        return answer.model_validate_json(data)
    except ValidationError as error:
        text = f"{of} answered something else than {answer.__name__}"
        raise ProtocolError("bad_answer", text) from error


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
