"""One streamed answer of an ASGI application, piece by piece, into another thread's queue.

Invariant: the queue always gets an `Ended` at last, whatever the application does; the application
is told that its caller has left when the task is cancelled.
"""

import asyncio
import queue
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message

from chutes_core.sdk.answers import broken_off, error_of


@dataclass(frozen=True)
class Ended:
    """The end of an answer: its status, and what went wrong."""

    status: int = 0
    refusal: bytes = b""
    error: Exception | None = field(default=None, compare=False)

    def check(self) -> None:
        """Raise what a caller would get for this end.

        Raises:
            ChutesError: the call was refused, or broke off.
        """
        if self.status >= 400:
            raise error_of(self.status, {}, self.refusal)
        if self.error is not None:
            raise broken_off(self.error) from self.error


async def flow(
    app: ASGIApp,
    path: str,
    body: bytes,
    headers: dict[str, str],
    pieces: "queue.Queue[bytes | Ended]",
) -> None:
    """Post to the application and put what it sends into the queue."""
    status, refusal = 0, b""
    asked = False
    left = asyncio.Event()

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, refusal
        if message["type"] == "http.response.start":
            status = int(message["status"])
        elif status >= 400:
            refusal += message.get("body", b"")
        elif message.get("body"):
            pieces.put(message["body"])

    error: Exception | None = None
    try:
        await app(_scope(path, headers), receive, send)
    except Exception as raised:  # noqa: BLE001 - the edge: a user's function may raise anything
        error = raised
    finally:
        left.set()
        pieces.put(Ended(status, refusal, error))


def _scope(path: str, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": None,
        "server": ("chute.test", 80),
    }
