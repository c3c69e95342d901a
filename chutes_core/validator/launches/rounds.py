"""Rounds: at moments nobody chooses, several miners' instances are challenged at one instant.

A light challenge claims no memory, so one GPU can stand behind two instances, hotkeys or nodes and
pass each alone. In a round they all compute for `LEAST_US` at least, at the same time: what shares
silicon misses its deadlines. The moment and the miners come from the hash of a finalized block.

Path: validator/loops -> here -> lights. Invariant: who is challenged is a pure function of the
block's hash, this validator and the miner's hotkey, so anyone can check it afterwards.
"""

import asyncio
import hashlib
from collections.abc import Iterable

from loguru import logger

from chutes_core.validator.domain.launches import Launch, LaunchState
from chutes_core.validator.launches.lights import Lights
from chutes_core.validator.store.database import Store

LEAST_US = 500_000
MAX_INSTANCES = 64


def chosen(block_hash: str, validator: str, miners: Iterable[str], *, one_in: int) -> list[str]:
    """Return the miners whose instances this block has challenged, in order; none for 0.

    Args:
        block_hash: of a finalized block, hex.
        validator: this validator's hotkey.
        miners: hotkeys with active instances.
        one_in: a miner is chosen by one block of so many, on average.
    """
    if one_in < 1:
        return []
    return sorted(miner for miner in miners if _draw(block_hash, validator, miner) % one_in == 0)


def _draw(block_hash: str, validator: str, miner: str) -> int:
    text = f"chutes-round/1|{block_hash.removeprefix('0x').lower()}|{validator}|{miner}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Rounds:
    """Looks at each finalized block once."""

    def __init__(self, *, store: Store, lights: Lights, self_hotkey: str, one_in: int) -> None:
        self._store = store
        self._lights = lights
        self._self = self_hotkey
        self._one_in = one_in
        self._last = ""

    async def on_block(self, block_hash: str) -> int:
        """Challenge whom the block names; return how many instances that was."""
        if not self._one_in or block_hash == self._last:
            return 0
        self._last = block_hash
        launches = await asyncio.to_thread(self._active)
        miners = {launch.miner_hotkey for launch in launches}
        named = set(chosen(block_hash, self._self, miners, one_in=self._one_in))
        together = [launch for launch in launches if launch.miner_hotkey in named][:MAX_INSTANCES]
        if not together:
            return 0
        logger.info("round begun", block=block_hash, miners=len(named), instances=len(together))
        await self._lights.challenge(together, least_us=LEAST_US)
        return len(together)

    def _active(self) -> list[Launch]:
        launches = self._store.launches.open()
        return [launch for launch in launches if launch.state is LaunchState.ACTIVE]
