"""The one way a neuron does something again and again.

A loop is a clock and one service call. Invariant: this is the only place that may catch every
exception; it counts and logs what it caught, and a failing call never ends its loop or another.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

from loguru import logger

from chutes_core.base.errors import ChutesError

Noted = Callable[[str, Exception | None], None]


class Loops:
    """Runs periodic calls until closed.

    Args:
        noted: told of every call's end: the loop's name, and what it raised, None for nothing.
    """

    def __init__(self, noted: Noted | None = None) -> None:
        self._noted = noted or (lambda name, error: None)
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self.failures: Counter[tuple[str, str]] = Counter()
        """(name of a loop, code) -> how often; ``internal`` is the code of an untyped error."""

    def every(self, seconds: float, name: str, call: Callable[[], Awaitable[object]]) -> None:
        """Call now, and again ``seconds`` after each end, until closed."""
        self._tasks.append(asyncio.create_task(self._run(seconds, name, call), name=name))

    async def close(self) -> None:
        """Cancel all loops and wait until they have ended; none begins again."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _run(self, seconds: float, name: str, call: Callable[[], Awaitable[object]]) -> None:
        while not self._closed:  # a call may lose its cancellation (asyncio.wait_for did, to 3.11)
            await self.once(name, call)
            if not self._closed:
                await asyncio.sleep(seconds)

    async def once(self, name: str, call: Callable[[], Awaitable[object]]) -> None:
        """Make one call at the loop's edge: whatever it raises is counted and logged."""
        try:
            await call()
        except ChutesError as error:
            self.failures[name, error.code] += 1
            self._noted(name, error)
            logger.warning("loop call failed", loop=name, code=error.code, error=str(error))
        except Exception as error:  # noqa: BLE001 # the edge: nothing above could handle it better
            self.failures[name, "internal"] += 1
            self._noted(name, error)
            logger.opt(exception=error).error("loop call failed", loop=name, code="internal")
        else:
            self._noted(name, None)


class Signal:
    """A wish that something be done soon; many wishes before it is done count as one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wish."""
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a wish at most ``timeout_s`` seconds and take it; tell whether there was one."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._event.wait(), timeout_s)
        wished = self._event.is_set()
        self._event.clear()
        return wished
