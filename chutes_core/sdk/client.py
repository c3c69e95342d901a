"""The synchronous client of a validator's API: what the commands speak through.

Invariant: a request either returns the parsed answer or raises a ChutesError; nothing waits
without a limit. Paths and bodies are those of shared/PUBLIC_API (Calls).
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import httpx
from typing_extensions import Self

from chutes_core.base.errors import ChutesError, ProtocolError
from chutes_core.sdk.answers import error_of, unreachable
from chutes_core.sdk.credentials import Credentials, HotkeyCredentials

TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
STREAM_SILENCE_S = 120.0
PIECE_BYTES = 256 * 1024
_REPLAY_TRIES = 4
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def new_timeout(read_s: float = TIMEOUT_S) -> httpx.Timeout:
    """Return the limits of one request; ``read_s`` is the longest silence."""
    return httpx.Timeout(read_s, connect=CONNECT_TIMEOUT_S)


def uses_proxy(base_url: str) -> bool:
    """Return whether proxies of the environment apply: never to this machine itself."""
    return httpx.URL(base_url).host not in _LOOPBACK


class ApiClient:
    """A connection to one validator as one caller.

    Args:
        base_url: the API's address, without a slash at its end.
        credentials: how to sign, or None for what anybody may read.
    """

    def __init__(self, base_url: str, credentials: Credentials | None = None) -> None:
        self.base_url = base_url
        self._credentials = credentials
        self._http = httpx.Client(
            base_url=base_url, timeout=new_timeout(), trust_env=uses_proxy(base_url)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        purpose: str = "",
        body: Any = None,
        params: Mapping[str, str | int | bool] | None = None,
    ) -> Any:
        """Send a JSON request and return the parsed answer."""
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        answer = self.send(
            method, path, purpose=purpose, content=content, params=params, headers=headers
        )
        return parse_json(answer)

    def upload(
        self,
        path: str,
        fields: Mapping[str, str],
        files: Mapping[str, tuple[str, bytes, str]],
        *,
        sent: Callable[[int], None] | None = None,
    ) -> Any:
        """Send a multipart form (files: field -> name, bytes, type); return the parsed answer.

        Args:
            path: where to.
            fields: the form's texts.
            files: its files.
            sent: told the bytes of each piece that has left.
        """
        form = self._http.build_request("POST", path, data=dict(fields), files=dict(files))
        content = form.read()
        headers = {"Content-Type": form.headers["Content-Type"]}
        return parse_json(self.send("POST", path, content=content, headers=headers, sent=sent))

    def send(
        self,
        method: str,
        path: str,
        *,
        purpose: str = "",
        content: bytes | None = None,
        params: Mapping[str, str | int | bool] | None = None,
        headers: Mapping[str, str] | None = None,
        read_s: float = TIMEOUT_S,
        sent: Callable[[int], None] | None = None,
    ) -> httpx.Response:
        """Send bytes and return the whole answer; a status of 400 or more raises."""
        answer = self.open_stream(
            method,
            path,
            purpose=purpose,
            content=content,
            params=params,
            headers=headers,
            read_s=read_s,
            sent=sent,
        )
        try:
            answer.read()
        except httpx.TransportError as error:
            raise unreachable(self.base_url, error) from error
        finally:
            answer.close()
        return answer

    def open_stream(
        self,
        method: str,
        path: str,
        *,
        purpose: str = "",
        content: bytes | None = None,
        params: Mapping[str, str | int | bool] | None = None,
        headers: Mapping[str, str] | None = None,
        read_s: float = STREAM_SILENCE_S,
        sent: Callable[[int], None] | None = None,
    ) -> httpx.Response:
        """Send a request and return the answer with its body unread; the caller closes it."""
        for last in [False] * _REPLAY_TRIES + [True]:
            request = self._request(method, path, purpose, content, params, headers, read_s)
            if sent is not None and content is not None:
                request.stream = _Told(content, sent)
            try:
                answer = self._http.send(request, stream=True)
                if answer.status_code < 400:
                    return answer
                answer.read()
            except httpx.TransportError as error:
                raise unreachable(self.base_url, error) from error
            failure = error_of(answer.status_code, answer.headers, answer.content)
            if last or not self._may_sign_again(failure):
                raise failure
        raise AssertionError("the last try returns or raises")

    def lines(
        self,
        path: str,
        *,
        purpose: str = "",
        params: Mapping[str, str | int | bool] | None = None,
    ) -> Iterator[str]:
        """Yield the lines of a streamed answer as they come."""
        answer = self.open_stream("GET", path, purpose=purpose, params=params)
        try:
            yield from answer.iter_lines()
        except httpx.TransportError as error:
            raise unreachable(self.base_url, error) from error
        finally:
            answer.close()

    def _request(
        self,
        method: str,
        path: str,
        purpose: str,
        content: bytes | None,
        params: Mapping[str, str | int | bool] | None,
        headers: Mapping[str, str] | None,
        read_s: float,
    ) -> httpx.Request:
        signed = self._credentials.headers(content, purpose) if self._credentials else {}
        return self._http.build_request(
            method,
            path,
            content=content,
            params=dict(params) if params else None,
            headers={**(headers or {}), **signed},
            timeout=new_timeout(read_s),
        )

    def _may_sign_again(self, failure: ChutesError) -> bool:
        """Return True after another process of this hotkey signed the same text that second."""
        if failure.code != "auth_replayed" or not isinstance(self._credentials, HotkeyCredentials):
            return False
        self._credentials.skip(1 + secrets.randbelow(7))
        return True


class _Told(httpx.SyncByteStream):
    """A body that tells of each piece as it leaves."""

    def __init__(self, content: bytes, sent: Callable[[int], None]) -> None:
        self._content = content
        self._sent = sent

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._content), PIECE_BYTES):
            piece = self._content[start : start + PIECE_BYTES]
            yield piece
            self._sent(len(piece))


def parse_json(answer: httpx.Response) -> Any:
    """Return the JSON of an answer.

    Raises:
        ProtocolError: ``not_json``.
    """
    try:
        return answer.json()
    except ValueError as error:
        raise ProtocolError(
            "not_json",
            f"{answer.request.url.path} did not answer with JSON",
            hint="is CHUTES_API_URL the address of a validator?",
        ) from error
