"""How a chute answers HTTP: from a request to a cord's function and back.

Used inside the runner and by `chutes run --dev`. A cord is reached in two ways:

- at ``path`` (POST, and its own method) with ``{"args": [], "kwargs": {}}``, as the SDK calls;
- at ``public_api_path`` with its method and a plain JSON body (or a query, where there is none).

Where both ways meet on one path, the header ``x-chutes-call: arguments`` (set by the gateway and by
the SDK, never passed on from a caller) marks the first. Two cords may share a public path when one
is a stream: the body's ``stream`` chooses. Invariant: a stream's first item is there
before the status line goes out, so that an early failure is a plain 500.
"""

import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import pydantic_core
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from chutes_core.base.errors import Conflict
from chutes_core.sdk.cord import Cord
from chutes_core.sdk.passthrough import forward
from chutes_core.sdk.schemas import InvalidInput
from chutes_core.wire.call import CALL_BY_ARGUMENTS, HEADER_CALL

CLEAN_UP_S = 5.0  # a stream's function has this long to end after its caller left
_LOG = logging.getLogger("chutes")
_END = object()


class _CordStream(StreamingResponse):
    """A stream whose function ends with it, however it ends: its clean-up has run afterwards."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, then close the function."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.move_on_after(CLEAN_UP_S, shield=True):
                await cast(AsyncGenerator[bytes, None], self.body_iterator).aclose()


@dataclass
class _Place:
    """What is served at one method and path."""

    internal: Cord | None = None
    public: dict[bool, Cord] = field(default_factory=dict)  # by whether it streams


class CordTable:
    """Every method and path of a chute's cords."""

    def __init__(self, passthrough_headers: dict[str, str]) -> None:
        self._places: dict[tuple[str, str], _Place] = {}
        self._passthrough_headers = passthrough_headers

    def add(self, cord: Cord) -> list[tuple[str, str]]:
        """Add a cord and return each (method, path) that was not served before.

        Raises:
            Conflict: ``cord_path_taken``; nothing was added.
        """
        internal = [(method, cord.path) for method in dict.fromkeys((cord.method, "POST"))]
        public = (
            [] if cord.public_api_path is None else [(cord.public_api_method, cord.public_api_path)]
        )
        for key in internal:
            if key in self._places and self._places[key].internal is not None:
                raise _taken(cord, cord.path)
        for key in public:
            if key in self._places and cord.stream in self._places[key].public:
                raise _taken(cord, key[1])
        fresh = [key for key in dict.fromkeys(internal + public) if key not in self._places]
        for key in internal:
            self._places.setdefault(key, _Place()).internal = cord
        for key in public:
            self._places.setdefault(key, _Place()).public[cord.stream] = cord
        return fresh

    async def endpoint(self, request: Request) -> Response:
        """Answer one request to any cord."""
        place = self._places[request.method, request.scope["path"]]
        raw = await request.body()
        try:
            cord, kwargs = _resolve(place, request, raw)
            if cord.passthrough:
                return await forward(request, raw, cord, self._passthrough_headers)
            if kwargs is None:
                kwargs = cord.input.from_body(_parse(request, raw))
            if cord.stream:
                return await _stream(cord, kwargs)
            return to_response(cord, await cord.run(**kwargs))
        except InvalidInput as error:
            return error_response(422, error.code, error.message, error.hint, fields=error.fields)
        except HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - the edge: a user's function may raise anything
            return _failed(request, error)


def to_response(cord: Cord, result: Any) -> Response:
    """Return what a cord's result becomes on the wire."""
    if isinstance(result, Response):
        return result
    content_type = cord.output_content_type
    if isinstance(result, (bytes, bytearray, memoryview)):
        return Response(bytes(result), media_type=content_type or "application/octet-stream")
    if isinstance(result, str) and content_type and "json" not in content_type:
        return Response(result, media_type=content_type)
    return Response(_json(result), media_type=content_type or "application/json")


def error_response(
    status: int, code: str, message: str, hint: str = "", **more: Any
) -> JSONResponse:
    """Return an error in the form of every server of ours."""
    return JSONResponse({"detail": message, "code": code, "hint": hint, **more}, status_code=status)


async def http_error(_request: Request, error: Exception) -> Response:
    """Give an HTTPException of the framework or of a user's function the same form."""
    assert isinstance(error, HTTPException)
    response = error_response(error.status_code, f"http_{error.status_code}", error.detail)
    response.headers.update(error.headers or {})
    return response


def _resolve(place: _Place, request: Request, raw: bytes) -> tuple[Cord, dict[str, Any] | None]:
    """Return the cord, and its arguments where they came as an SDK call."""
    internal, public = place.internal, place.public
    if internal is not None and request.headers.get(HEADER_CALL) == CALL_BY_ARGUMENTS:
        return internal, None if internal.passthrough else _arguments(internal, request, raw)
    if len(public) > 1:
        return public[_wants_stream(_parse(request, raw))], None
    if public:
        return next(iter(public.values())), None
    assert internal is not None
    if not internal.passthrough and _is_call(_parse(request, raw)):
        return internal, _arguments(internal, request, raw)
    return internal, None


def _arguments(cord: Cord, request: Request, raw: bytes) -> dict[str, Any]:
    body = _parse(request, raw)
    if not isinstance(body, dict) or not _is_call({"args": [], "kwargs": {}, **body}):
        raise InvalidInput([{"loc": "", "msg": 'a call is {"args": [], "kwargs": {}}'}])
    return cord.input.from_call(body.get("args", []), body.get("kwargs", {}))


def _wants_stream(body: Any) -> bool:
    return isinstance(body, dict) and bool(body.get("stream"))


def _is_call(body: Any) -> bool:
    return (
        isinstance(body, dict)
        and set(body) == {"args", "kwargs"}
        and isinstance(body["args"], list)
        and isinstance(body["kwargs"], dict)
    )


def _parse(request: Request, raw: bytes) -> Any:
    if not raw:
        query = request.query_params
        return {
            name: values[0] if len(values := query.getlist(name)) == 1 else values for name in query
        }
    try:
        return pydantic_core.from_json(raw)
    except ValueError as error:
        raise InvalidInput([{"loc": "", "msg": f"the body is no JSON: {error}"}]) from error


async def _stream(cord: Cord, kwargs: dict[str, Any]) -> Response:
    items = cord.iterate(**kwargs)
    first = await anext(items, _END)
    return _CordStream(
        _chunks(cord, first, items),
        media_type=cord.output_content_type,
        headers={"Cache-Control": "no-cache"},
    )


async def _chunks(
    cord: Cord, first: Any, items: AsyncGenerator[Any, None]
) -> AsyncGenerator[bytes, None]:
    try:
        if first is _END:
            return
        yield _chunk(cord, first)
        async for item in items:
            yield _chunk(cord, item)
    except Exception:
        _LOG.exception("cord %s failed in the middle of its stream", cord.function)
        raise
    finally:
        await items.aclose()


def _chunk(cord: Cord, item: Any) -> bytes:
    """Return an item's bytes: text as it is, anything else as one JSON event (or line)."""
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    if isinstance(item, str):
        return item.encode()
    if cord.output_content_type == "text/event-stream":
        return b"data: " + _json(item) + b"\n\n"
    return _json(item) + b"\n"


def _json(value: Any) -> bytes:
    return pydantic_core.to_json(value, inf_nan_mode="null")


def _failed(request: Request, error: Exception) -> Response:
    _LOG.error("cord at %s failed", request.scope["path"], exc_info=error)
    return error_response(
        500,
        "cord_failed",
        f"the chute's function raised {type(error).__name__}",
        "the chute's owner finds the traceback in the instance's log",
    )


def _taken(cord: Cord, path: str) -> Conflict:
    return Conflict(
        "cord_path_taken",
        f"cord {cord.function!r} cannot be served at {path}: another cord is",
        hint="give it a path of its own, e.g. @chute.cord(path=…, public_api_path=…)",
    )
