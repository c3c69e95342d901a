"""Instances without a launch that a runtime holds ready: which there are, and their handing over.

Path: miner/standby decides -> `Pool.hold`; Runtime.start -> `Pool.take`. A stand-by is a runner
that has imported everything and knows no launch (runner/standby). Invariants: it belongs to no
launch until it is handed over, and to exactly one then; one that cannot be handed over is ended,
and the launch starts as any other; and a miner that was killed leaves none behind, for it ends with
the miner's end of its stdin, and what is left of it is an orphan to the next start.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Protocol

from loguru import logger

from chutes_core.base.errors import ChutesError
from chutes_core.engine.run import STAND_BY_PREFIX
from chutes_core.miner.runtime.base import InstanceSpec, StandBy


class Places(Protocol):
    """What a runtime does for its stand-bys."""

    async def put_up(self, place: str, stand_by: StandBy) -> None:
        """Start one.

        Raises:
            ChutesError, OSError: it cannot be started; nothing is left behind.
        """
        ...

    async def hand_over(self, place: str, launch_id: str, runner_env: Mapping[str, str]) -> None:
        """Make it the instance of a launch.

        Raises:
            ChutesError, OSError: it cannot be; it is found under either name then.
        """
        ...

    def is_up(self, place: str) -> bool:
        """Tell whether it still waits."""
        ...

    async def take_down(self, name: str) -> None:
        """End it, whichever of its two names it has; returns when it is gone."""
        ...


class Pool:
    """The stand-bys of one runtime."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._changing = asyncio.Lock()
        self.held: dict[str, StandBy] = {}
        """What waits, by place: a name in the stead of a launch id."""
        self._going: set[str] = set()

    async def hold(self, wanted: Sequence[StandBy]) -> tuple[StandBy, ...]:
        """Hold exactly these; return those that did not come up, or did not stay."""
        async with self._changing:
            missing, failed = list(wanted), []
            for place, stand_by in list(self.held.items()):
                if place in self._going:
                    continue
                if not self._places.is_up(place):
                    failed.append(stand_by)
                elif stand_by in missing:
                    missing.remove(stand_by)
                    continue
                await self._end(place)
            for stand_by in missing:
                if stand_by not in failed and not await self._begin(stand_by):
                    failed.append(stand_by)
            return tuple(failed)

    async def take(self, spec: InstanceSpec) -> bool:
        """Hand a fitting one over to a launch; False where none fits, or it went wrong."""
        place = self._fitting(spec)
        if place is None:
            return False
        self._going.add(place)
        try:
            return await self._hand_over(place, spec)
        finally:
            self._going.discard(place)
            self.held.pop(place, None)  # only now: before, it was nobody's orphan

    def _fitting(self, spec: InstanceSpec) -> str | None:
        for place, stand_by in self.held.items():
            if stand_by.fits(spec) and place not in self._going and self._places.is_up(place):
                return place
        return None

    async def _hand_over(self, place: str, spec: InstanceSpec) -> bool:
        log = logger.bind(launch_id=spec.launch_id)
        try:
            await self._places.hand_over(place, spec.launch_id, spec.runner_env)
        except (ChutesError, OSError) as error:
            log.warning("a stand-by could not be handed over: {}", error)
            for name in (place, spec.launch_id):
                await self._places.take_down(name)
            return False
        log.info("instance was started from a stand-by")
        return True

    async def _begin(self, stand_by: StandBy) -> bool:
        place = STAND_BY_PREFIX + secrets.token_hex(8)
        self.held[place] = stand_by  # before it exists: nobody may take it for an orphan
        try:
            await self._places.put_up(place, stand_by)
        except (ChutesError, OSError) as error:
            logger.bind(image=stand_by.image.image_id).warning("no stand-by: {}", error)
            del self.held[place]
            return False
        logger.bind(image=stand_by.image.image_id, place=place).info("stand-by was started")
        return True

    async def _end(self, place: str) -> None:
        self._going.add(place)
        try:
            await self._places.take_down(place)
        except ChutesError as error:  # what it left is an orphan
            logger.bind(place=place, code=error.code).warning("a stand-by was not ended: {}", error)
        finally:
            self._going.discard(place)
            self.held.pop(place, None)
