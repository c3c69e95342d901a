"""Calling cords from code without an event loop: one loop in a thread for each call.

Invariant: an async iterator is entered, read and closed by one task, whoever waits for it; a caller
that leaves a stream ends it, and its clean-up has run when the caller goes on.
"""

import queue
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import anyio.from_thread


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None = None


def result_of(call: Awaitable[Any]) -> Any:
    """Return what an awaitable gives; what it raises passes through."""

    async def whole() -> Any:
        return await call

    with anyio.from_thread.start_blocking_portal() as portal:
        return portal.call(whole)


def items_of(stream: AsyncIterator[Any]) -> Iterator[Any]:
    """Yield the items of an async iterator, each as soon as it is there."""
    items: queue.Queue[Any] = queue.Queue()

    async def pump() -> None:
        error: BaseException | None = None
        try:
            async with aclosing(cast(Any, stream)):
                async for item in stream:
                    items.put(item)
        except Exception as raised:  # noqa: BLE001 - handed on to the thread that waits
            error = raised
        finally:
            items.put(_Ended(error))

    with anyio.from_thread.start_blocking_portal() as portal:
        running = portal.start_task_soon(pump)
        try:
            while not isinstance(item := items.get(), _Ended):
                yield item
        finally:
            running.cancel()
        if item.error is not None:
            raise item.error
