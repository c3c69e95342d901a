"""Keeps the gateway's Snapshot fresh: rebuilt in a thread, swapped on the loop, whole.

Invariant: what a control call wrote is in the Snapshot before that call is answered, so a user can
use a new key at once and a revoked one never again.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from chutes_core.validator.domain.snapshot import Snapshot

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]


class Pictures:
    """Builds and swaps snapshots; calls that come while one is built share the next.

    ``swap`` may return what is to be awaited until the snapshot counts everywhere.
    """

    def __init__(
        self,
        build: Callable[[], Snapshot],
        swap: Callable[[Snapshot], Awaitable[None] | None],
    ) -> None:
        self._build = build
        self._swap = swap
        self._next: asyncio.Task[None] | None = None
        self._building = asyncio.Lock()

    async def refresh(self) -> None:
        """Return once a snapshot that was begun after this call has been swapped in."""
        if self._next is None:
            self._next = asyncio.create_task(self._refresh())
        await asyncio.shield(self._next)

    async def _refresh(self) -> None:
        async with self._building:
            self._next = None  # who comes from now on needs a later one
            swapped = self._swap(await asyncio.to_thread(self._build))
            if swapped is not None:
                await swapped


class FreshAfterWrites:
    """ASGI middleware: the answer to a successful write waits for the snapshot that shows it.

    What is sent to paths ``except_under`` a prefix, or ``except_for``, writes nothing of the kind.
    """

    def __init__(
        self,
        app: _App,
        pictures: Pictures,
        *,
        except_under: str,
        except_for: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._app = app
        self._pictures = pictures
        self._except_under = except_under
        self._except_for = except_for

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send
    ) -> None:
        """Serve one request."""
        reading = scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS")
        path: str = scope["path"]
        if reading or path.startswith(self._except_under) or self._except_for(path):
            await self._app(scope, receive, send)
            return

        async def send_fresh(message: _Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                await self._pictures.refresh()
            await send(message)

        await self._app(scope, receive, send_fresh)
