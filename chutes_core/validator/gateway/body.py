"""Request bodies: read whole before dispatch, bounded one by one and all together.

Path: front reads, forward sends (again, on a retry). Reading first means that a slow caller never
holds an instance's slot. Invariant: the bytes counted as held are those of calls still running.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import orjson

from chutes_core.base.errors import Exhausted, Invalid, TimedOut, TooLarge
from chutes_core.validator.gateway.asgi import Receive
from chutes_core.validator.gateway.limits import GatewayLimits

_PICKLE_HINT = (
    'send JSON: {"args": [...], "kwargs": {...}}; this validator never reads pickled data, '
    "so remote cord calls need its own SDK or the cord's public path"
)


class Bodies:
    """All bodies held at once."""

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self.held_bytes = 0

    @contextmanager
    def room(self) -> Iterator["Room"]:
        """Lend room for one body and take it back at the end."""
        room = Room(self, self._limits)
        try:
            yield room
        finally:
            self.held_bytes -= room.bytes

    def fits(self, size: int) -> bool:
        """Tell whether a whole body of this size may be held."""
        limits = self._limits
        return size <= limits.max_body_bytes and self.held_bytes + size <= limits.max_buffered_bytes

    def take(self, size: int) -> None:
        """Count ``size`` more bytes as held.

        Raises:
            Exhausted: ``bodies_full``.
        """
        if self.held_bytes + size > self._limits.max_buffered_bytes:
            raise Exhausted("bodies_full", "too many large requests at once", retry_after_s=5)
        self.held_bytes += size


class Room:
    """Room for one request's body."""

    def __init__(self, bodies: Bodies, limits: GatewayLimits) -> None:
        self._bodies = bodies
        self._limits = limits
        self.bytes = 0

    def check(self, content_length: str | None) -> None:
        """Refuse a body by its announced length alone.

        Raises:
            TooLarge: ``body_too_large``.
        """
        if content_length and content_length.isdigit():
            self._check(int(content_length))

    async def read(self, receive: Receive) -> bytes | None:
        """Return the whole body; None if the caller left meanwhile.

        Raises:
            TooLarge: ``body_too_large``.
            Exhausted: ``bodies_full``.
            TimedOut: ``body_timeout``.
        """
        whole = bytearray()
        with anyio.move_on_after(self._limits.body_timeout_s):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                if chunk := message.get("body", b""):
                    self._check(self.bytes + len(chunk))
                    self._bodies.take(len(chunk))
                    self.bytes += len(chunk)
                    whole += chunk
                if not message.get("more_body", False):
                    return bytes(whole)
        raise TimedOut("body_timeout", "the request body did not arrive in time")

    def _check(self, size: int) -> None:
        if size > self._limits.max_body_bytes:
            raise TooLarge(
                "body_too_large",
                f"a request body has at most {self._limits.max_body_bytes} bytes",
                limit_bytes=self._limits.max_body_bytes,
            )


def model_of(body: bytes) -> str:
    """Return the ``model`` of an OpenAI-style request.

    Raises:
        Invalid: ``no_model``.
    """
    document = _json(body)
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, str) or not model:
        raise Invalid(
            "no_model",
            "the body is no JSON object with a model",
            hint="GET /v1/models lists what this key may call",
        )
    return model


def check_arguments(body: bytes, content_type: str | None) -> None:
    """Refuse a cord call whose body is not ``{args, kwargs}`` in JSON.

    Raises:
        Invalid: ``unsupported_media_type`` or ``pickled_arguments`` (415), or ``bad_arguments``.
    """
    kind = (content_type or "application/json").partition(";")[0].strip().lower()
    if body[:1] == b"\x80":
        raise Invalid("pickled_arguments", "pickled arguments are refused", hint=_PICKLE_HINT)
    if kind != "application/json":
        raise Invalid("unsupported_media_type", "a cord call is JSON", hint=_PICKLE_HINT)
    document = _json(body)
    if not isinstance(document, dict):
        raise Invalid("bad_arguments", "a cord call is a JSON object", hint=_PICKLE_HINT)
    args, kwargs = document.get("args", []), document.get("kwargs", {})
    if isinstance(args, str) or isinstance(kwargs, str):
        raise Invalid("pickled_arguments", "pickled arguments are refused", hint=_PICKLE_HINT)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise Invalid("bad_arguments", "args is a list and kwargs an object", hint=_PICKLE_HINT)


def _json(body: bytes) -> object:
    try:
        document: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document
