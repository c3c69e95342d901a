"""The event loop that belongs to the user's chute, on the process's main thread.

Path: loader and executor (session thread) -> `ChuteLoop.submit` -> user code (main thread).
Invariant: user code never runs on the session's loop, so however long it blocks, pings, renewals,
stops and the lease go on; and it runs where it expects to, on the main thread.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_LOG = logging.getLogger("chutes_core.runner")


class ChuteLoop:
    """An event loop to which other threads hand coroutines."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stopped = False

    def run(self) -> None:
        """Run on the calling thread until `stop`; ``sys.exit`` in user code does not end it."""
        asyncio.set_event_loop(self._loop)
        while not self._stopped:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                _LOG.warning("user code raised %s; the instance goes on", type(error).__name__)
        self._cancel_all()
        asyncio.set_event_loop(None)
        self._loop.close()

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> "asyncio.Future[_T]":
        """Run a coroutine there; the result as a future of the calling loop."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def soon(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function there, soon; nothing happens once the loop has stopped."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            self._loop.call_soon_threadsafe(function, *arguments)

    def stop(self) -> None:
        """Make `run` return as soon as user code lets go."""
        self._stopped = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
