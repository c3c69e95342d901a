"""Loops: a clock and one service call each, and the only place that may catch everything.

Invariant: a loop ends only when it is told to; an error of one round is counted and logged with
its code, and the next round comes.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loguru import logger

from chutes_core.base.errors import ChutesError


@dataclass(frozen=True)
class Loop:
    """One body, run every ``interval_s`` (counted from the end of a round)."""

    name: str
    interval_s: float
    body: Callable[[], Awaitable[object]]


async def run_loop(loop: Loop, stop: asyncio.Event, errors: Counter[tuple[str, str]]) -> None:
    """Run until ``stop`` is set; ``errors`` counts (loop name, code)."""
    while not stop.is_set():
        try:
            await loop.body()
        except ChutesError as error:
            errors[loop.name, error.code] += 1
            logger.bind(loop=loop.name, code=error.code).warning("round failed: {}", error)
        except Exception as error:  # noqa: BLE001 - the edge: one bad round must not end the neuron
            errors[loop.name, "internal"] += 1
            logger.opt(exception=error).bind(loop=loop.name, code="internal").error("round failed")
        try:
            await asyncio.wait_for(stop.wait(), loop.interval_s)
        except asyncio.TimeoutError:
            continue
