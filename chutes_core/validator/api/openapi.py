"""The OpenAPI document: what every route takes and answers, its errors too.

Invariant: each operation names every status that it can answer, and every error has the one shape
`{"detail", "code", "hint"}`. Which errors an operation can have follows from what it takes (a
proof of the caller, a path, a body), so that a new route is documented without a word of its own;
tests/protocol/api holds the running API to it.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPBase

API_KEY = HTTPBearer(auto_error=False, scheme_name="API key", description="cpk_… (chutes keys)")
HOTKEY = APIKeyHeader(
    name="X-Chutes-Signature",
    auto_error=False,
    scheme_name="Hotkey signature",
    description="with X-Chutes-Hotkey and X-Chutes-Nonce",
)
NEURON = APIKeyHeader(
    name="X-Bittensor-Signature",
    auto_error=False,
    scheme_name="Neuron signature",
    description="btauth/1, by a registered hotkey",
)
LAUNCH = HTTPBase(
    scheme="Launch", auto_error=False, scheme_name="Launch token", description="of a grant's image"
)

EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "server-sent events",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
"""For `responses=` of a route that streams."""

PART: dict[int | str, dict[str, Any]] = {
    206: {
        "description": "the range that was asked for",
        "content": {"application/octet-stream": {}, "multipart/byteranges": {}},
    }
}
"""For `responses=` of a route that sends a file, whole or in ranges."""

_TEXTS = {
    400: "the request cannot be read",
    401: "no proof of the caller, a wrong or an expired one",
    402: "the balance, or the key's budget, does not cover it",
    403: "the caller lacks the right",
    404: "there is no such thing, or the caller may not see it",
    408: "the body did not come in time",
    409: "the state does not allow it",
    413: "something is larger than its bound",
    414: "the path and query are longer than what passes",
    416: "the range lies outside of the file",
    422: "what was sent breaks a rule, which is named",
    429: "too often or too much at once; Retry-After says when again",
    431: "there are more headers than what passes",
    500: "the validator failed",
    502: "the chain, or another neuron, answered with nonsense",
    503: "not now; Retry-After says when again",
    504: "the chain, or another neuron, did not answer in time",
}
_ALWAYS = (500, 503)
_PROVEN = (401, 403, 408, 413, 429)
_WRITTEN = (402, 404, 409, 502, 504)
_SENT = (400, 408, 413, 422, 429)
_DROPPED = ("HTTPValidationError", "ValidationError")


def document_errors(app: FastAPI) -> None:
    """Let the document of ``app`` name every error of every operation."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def multipart(fields: dict[str, str], *, required: Iterable[str]) -> dict[str, Any]:
    """Return the documented body of a route that reads its form by itself, for `openapi_extra=`.

    Args:
        fields: name -> "text" or "file".
        required: the names without which the form is refused.
    """
    text, file = {"type": "string"}, {"type": "string", "format": "binary"}
    properties = {name: file if kind == "file" else text for name, kind in fields.items()}
    schema = {"type": "object", "properties": properties, "required": sorted(required)}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def _described(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _DROPPED:
        schemas.pop(name, None)
    schemas["Error"] = _error_schema()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _add_errors(operation, path, method)
    return document


def _add_errors(operation: dict[str, Any], path: str, method: str) -> None:
    responses = operation["responses"]
    statuses = {*_ALWAYS, *(int(status) for status in responses if status >= "400")}
    if "security" in operation:
        statuses.update(_PROVEN)
    if "{" in path:
        statuses.add(404)
    if method not in ("get", "head"):
        statuses.update(_WRITTEN)
    if "requestBody" in operation:
        statuses.update(_SENT)
    if operation.get("parameters"):
        statuses.add(422)
    if "206" in responses:
        statuses.add(416)
    for status in sorted(statuses):
        shape: dict[str, Any] = {"$ref": "#/components/schemas/Error"}
        content: dict[str, Any] = {"application/json": {"schema": shape}}
        if status == 416:
            content = {"text/plain": {"schema": {"type": "string"}}}
        responses[str(status)] = {"description": _TEXTS[status], "content": content}


def _error_schema() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            "detail": text | {"description": "what happened, in one sentence"},
            "code": text | {"description": "stable; compare with this"},
            "hint": text | {"description": "what to do next"},
        },
        "required": ["detail", "code", "hint"],
    }
