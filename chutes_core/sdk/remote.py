"""Calling a deployed chute's cord from Python: `await echo("bar")`.

The call goes to POST {api}/chutes/{chute id}{path} with `{"args": [], "kwargs": {}}`; with
CHUTES_DEV_URL to the same path of a chute that runs locally. Invariant: nothing is pickled; what
comes back is JSON (made into the hinted type), text, or bytes.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import httpx
import pydantic_core
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from chutes_core.base.errors import ProtocolError
from chutes_core.sdk import credentials
from chutes_core.sdk.answers import broken_off, error_of, unreachable
from chutes_core.sdk.client import new_timeout, uses_proxy
from chutes_core.sdk.config import load_config
from chutes_core.wire.call import CALL_BY_ARGUMENTS, HEADER_CALL

if TYPE_CHECKING:
    from chutes_core.sdk.chute import Chute
    from chutes_core.sdk.cord import Cord

_READ_TIMEOUT_S = 600.0


async def call_cord(
    chute: "Chute", cord: "Cord", args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call the cord and return its result.

    Raises:
        ChutesError: the server refused, or cannot be reached.
    """
    base, request = _request(chute, cord, args, kwargs)
    async with _client(base) as client:
        try:
            answer = await client.send(request)
        except httpx.TransportError as error:
            raise unreachable(base, error) from error
    if answer.status_code >= 400:
        raise error_of(answer.status_code, answer.headers, answer.content)
    return result_of(cord, answer)


async def stream_cord(
    chute: "Chute", cord: "Cord", args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncIterator[str]:
    """Call the streaming cord and yield its text as it comes.

    Raises:
        ChutesError: the server refused, or broke off.
    """
    base, request = _request(chute, cord, args, kwargs)
    async with _client(base) as client:
        try:
            answer = await client.send(request, stream=True)
            refusal = await answer.aread() if answer.status_code >= 400 else None
        except httpx.TransportError as error:
            raise unreachable(base, error) from error
        async with aclosing(answer):
            if refusal is not None:
                raise error_of(answer.status_code, answer.headers, refusal)
            try:
                async for chunk in answer.aiter_text():
                    yield chunk
            except httpx.TransportError as error:
                raise broken_off(error) from error


def _request(
    chute: "Chute", cord: "Cord", args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, httpx.Request]:
    config = load_config()
    body = pydantic_core.to_json({"args": list(args), "kwargs": kwargs}, inf_nan_mode="constants")
    headers = {"Content-Type": "application/json", HEADER_CALL: CALL_BY_ARGUMENTS}
    if config.dev_url:
        base = config.dev_url.rstrip("/")
        return base, httpx.Request("POST", f"{base}{cord.path}", content=body, headers=headers)
    base = config.require_api_url()
    headers.update(credentials.for_calls(config).headers(body, "chutes"))
    url = f"{base}/chutes/{chute.chute_id}{cord.path}"
    return base, httpx.Request("POST", url, content=body, headers=headers)


def _client(base_url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=new_timeout(_READ_TIMEOUT_S), trust_env=uses_proxy(base_url))


def result_of(cord: "Cord", answer: httpx.Response) -> Any:
    """Return what a cord answered, made into its hinted type where that can be checked.

    Raises:
        ProtocolError: ``unexpected_result``.
    """
    content_type = answer.headers.get("content-type", "").partition(";")[0].strip()
    if content_type.startswith("text/"):
        return answer.text
    if content_type != "application/json":
        return answer.content
    try:
        value = pydantic_core.from_json(answer.content)
        return TypeAdapter(cord.output_type).validate_python(value)
    except PydanticUserError:
        return value  # hinted as something that JSON cannot say, e.g. a Response
    except (ValueError, ValidationError) as error:
        raise ProtocolError(
            "unexpected_result",
            f"cord {cord.function!r} answered something else than its hint",
            hint="is the deployed version the one of this file?",
        ) from error
