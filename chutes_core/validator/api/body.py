"""Request bodies are read whole, once, within a limit of bytes and time, before anything else.

Invariant: no handler, dependency or parser sees a body that is over its route's limit. Signatures
cover the raw bytes, so the body is kept as it came and replayed to whoever parses it.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive

from chutes_core.base.errors import Exhausted, Invalid, TimedOut, TooLarge

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Holder = Callable[[Request], Awaitable[str]]


class Slots:
    """How many large bodies may be in memory at once: ``count`` of all, ``each`` of one holder."""

    def __init__(self, count: int, *, each: int, holder: Holder) -> None:
        self._count = count
        self._each = each
        self._holder = holder
        self._taken: Counter[str] = Counter()

    @asynccontextmanager
    async def taken(self, request: Request) -> AsyncIterator[None]:
        """Hold a slot for this request.

        Raises:
            Exhausted: ``uploads_busy``.
            Unauthenticated: nobody can be held to account for it.
        """
        name = await self._holder(request)
        if self._taken[name] >= self._each or self._taken.total() >= self._count:
            raise Exhausted("uploads_busy", "too many uploads at once", retry_after_s=5)
        self._taken[name] += 1
        try:
            yield
        finally:
            self._taken[name] -= 1
            if not self._taken[name]:
                del self._taken[name]


def bounded_route(
    limit_bytes: int, *, timeout_s: float = 30.0, slots: Slots | None = None
) -> type[APIRoute]:
    """Return a route class whose bodies have at most ``limit_bytes`` and come in ``timeout_s``."""

    class BoundedRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def bounded(request: Request) -> Response:
                if request.method in ("GET", "HEAD") or slots is None:
                    return await _handle(request)
                async with slots.taken(request):
                    return await _handle(request)

            async def _handle(request: Request) -> Response:
                body = await read_body(request, limit_bytes, timeout_s)
                return await handle(Request(request.scope, _replay(body, request.receive)))

            return bounded

    return BoundedRoute


async def read_body(request: Request, limit_bytes: int, timeout_s: float) -> bytes:
    """Return a request's body.

    Raises:
        TooLarge: ``body_too_large``, as soon as it is known.
        TimedOut: ``body_timeout``.
        Invalid: ``body_cut`` where the client hung up.
    """
    said = request.headers.get("content-length", "")
    if said.isascii() and said.isdigit() and len(said) < 20 and int(said) > limit_bytes:
        raise _too_large(limit_bytes)
    body = bytearray()
    try:
        with anyio.fail_after(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit_bytes:
                    raise _too_large(limit_bytes)
    except TimeoutError as error:
        raise TimedOut("body_timeout", f"the body did not come in {timeout_s:.0f} s") from error
    except ClientDisconnect as error:
        raise Invalid("body_cut", "the request ended before its body did") from error
    return bytes(body)


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge("body_too_large", f"a body here has at most {limit_bytes} bytes")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives the body once and then what the connection says."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
