"""Makes blocks: when its timer says so, or at once for a development control.

Invariant: block times grow strictly, except where dev_setTime has turned the clock back; a stall
stops the timer only, never a block that is asked for.
"""

import asyncio
from collections.abc import Mapping

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.devnet.blocks import Block
from chutes_core.devnet.chain import Chain


class Author:
    """The one author of blocks.

    Args:
        chain: the chain to extend; its newest block may be older than this process.
        clock: wall time.
    """

    def __init__(self, chain: Chain, clock: Clock) -> None:
        self._chain = chain
        self._clock = clock
        self._last_ms = chain.now_ms
        # a clock that was set forward stays forward when the chain is started again
        self._ahead_ms = max(0, self._last_ms - self._wall_ms())

    def __call__(self, storage: Mapping[bytes, bytes | None] | None = None) -> Block:
        """Produce one block now.

        Args:
            storage: raw keys that the block sets by force.
        """
        self._last_ms = max(self._wall_ms() + self._ahead_ms, self._last_ms + 1)
        block = self._chain.produce(self._last_ms, storage)
        signed = len(block.extrinsics) - 1
        if signed:
            logger.bind(number=block.number, extrinsics=signed).debug("sealed a block")
        return block

    def set_time(self, now_ms: int) -> None:
        """Let the next block have this time, and time run on from it."""
        self._ahead_ms = now_ms - self._wall_ms()
        self._last_ms = now_ms - 1

    async def run(self, period_s: float) -> None:
        """Produce a block every ``period_s`` seconds, except while blocks are stalled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + period_s
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not self._chain.faults.stall_blocks:
                self()
            due = max(due + period_s, loop.time())  # a late block delays, never doubles the next

    def _wall_ms(self) -> int:
        return self._clock.now_us() // 1_000
