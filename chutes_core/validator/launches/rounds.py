"""Rounds: at moments nobody chooses, all that several miners have is challenged at one instant.

A light challenge claims no memory, so one GPU can stand behind two instances, hotkeys or nodes and
pass each alone; and it can pass the node attestations of ten idle GPUs one after the other. In a
round instances and idle GPUs compute for `LEAST_US` at least, at the same time: what shares silicon
misses its deadlines. The moment and the miners come from the hash of a finalized block. An idle GPU
that was called and answers nothing is no longer admitted (see `summonses`): it serves again after a
full attestation.

Path: validator/loops -> here -> musters, lights, summonses. Invariant: who is challenged is a pure
function of the block's hash, this validator and the miner's hotkey, so anyone can check it
afterwards.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable

from loguru import logger

from chutes_core.validator.domain.launches import Launch, LaunchState
from chutes_core.validator.launches.admissions import Admissions
from chutes_core.validator.launches.lights import Lights
from chutes_core.validator.launches.musters import Called, Muster
from chutes_core.validator.store.database import Store

LEAST_US = 500_000
MAX_INSTANCES = 64
MUSTER_S = 90.0
"""So long a miner has to bring its idle GPUs: it asks for what is wanted every few seconds."""
Leased = Callable[[str, str], bool]
"""Whether a miner's GPU (hotkey, UUID) is leased to this validator now."""


def chosen(block_hash: str, validator: str, miners: Iterable[str], *, one_in: int) -> list[str]:
    """Return the miners that this block has challenged, in order; none for 0.

    Args:
        block_hash: of a finalized block, hex.
        validator: this validator's hotkey.
        miners: hotkeys with active instances or idle GPUs.
        one_in: a miner is chosen by one block of so many, on average.
    """
    if one_in < 1:
        return []
    return sorted(miner for miner in miners if _draw(block_hash, validator, miner) % one_in == 0)


def _draw(block_hash: str, validator: str, miner: str) -> int:
    text = f"chutes-round/1|{block_hash.removeprefix('0x').lower()}|{validator}|{miner}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Rounds:
    """Looks at each finalized block once.

    Args:
        muster_s: how long called GPUs are waited for.
    """

    def __init__(
        self,
        *,
        store: Store,
        lights: Lights,
        muster: Muster,
        admissions: Admissions,
        leased: Leased,
        self_hotkey: str,
        one_in: int,
        muster_s: float = MUSTER_S,
    ) -> None:
        self._store = store
        self._lights = lights
        self._muster = muster
        self._admissions = admissions
        self._leased = leased
        self._self = self_hotkey
        self._one_in = one_in
        self._muster_s = muster_s
        self._last = ""

    async def on_block(self, block_hash: str) -> int:
        """Challenge whom the block names; return how many instances and node attestations."""
        if not self._one_in or block_hash == self._last:
            return 0
        self._last = block_hash
        active = {launch.miner_hotkey for launch in await asyncio.to_thread(self._active)}
        miners = active | await asyncio.to_thread(self._admissions.miners)
        named = chosen(block_hash, self._self, miners, one_in=self._one_in)
        idle = await asyncio.to_thread(self._summon, named)
        if not idle and not active & set(named):
            return 0
        logger.info("round begun", block=block_hash, miners=len(named), idle=_count(idle))
        try:
            return await self._round(set(named), idle)
        finally:
            await asyncio.shield(asyncio.to_thread(self._admissions.summonses.abandon))
            self._muster.dismiss()

    async def _round(self, named: set[str], idle: Called) -> int:
        plans = await self._muster.assemble(idle, self._muster_s)
        launches = await asyncio.to_thread(self._active)
        together = [launch for launch in launches if launch.miner_hotkey in named][:MAX_INSTANCES]
        outcomes = await self._lights.challenge(together, least_us=LEAST_US, beside=plans)
        self._muster.conclude(plans, outcomes)
        await asyncio.to_thread(self._end, idle)
        return len(together) + len(plans)

    def _summon(self, hotkeys: Iterable[str]) -> Called:
        """Call the idle GPUs of some miners, at one moment for the store."""
        with self._store.transaction():
            self._admissions.summonses.abandon()  # of a round that a restart cut off
            called = self._idle(hotkeys)
            self._admissions.summonses.call(called)
        return called

    def _idle(self, hotkeys: Iterable[str]) -> Called:
        """Return the admitted GPUs of some miners that serve nothing and are leased to us."""
        found = {
            hotkey: frozenset(
                uuid for uuid in self._admissions.idle(hotkey) if self._leased(hotkey, uuid)
            )
            for hotkey in hotkeys
        }
        return {hotkey: uuids for hotkey, uuids in found.items() if uuids}

    def _end(self, called: Called) -> None:
        """Hold called GPUs to the round, but for those whose lease to us has ended meanwhile."""
        unleased = {
            hotkey: [uuid for uuid in uuids if not self._leased(hotkey, uuid)]
            for hotkey, uuids in called.items()
        }
        self._admissions.summonses.end(unleased)

    def _active(self) -> list[Launch]:
        launches = self._store.launches.open()
        return [launch for launch in launches if launch.state is LaunchState.ACTIVE]


def _count(called: Called) -> int:
    return sum(len(uuids) for uuids in called.values())
