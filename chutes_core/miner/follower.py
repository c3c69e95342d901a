"""Keeps launches as they are told and as they are: validators' lists, ended instances, orphans.

Path: a loop of app.py -> `watch`; the start of the miner -> `adopt`. Invariant: every instance on
this host belongs to a launch in the books, or is removed; and every launch in the books whose
instance has ended is ended with a reason.
"""

import asyncio
from collections.abc import Sequence

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.discovery import Validator
from chutes_core.miner.ending import DRAIN_GRACE_S, Endings
from chutes_core.miner.live import Books, Live
from chutes_core.miner.reasons import MINER_FAILED, MINER_RESTARTED, UNKNOWN_LAUNCH, reason_of
from chutes_core.miner.reports import Reports
from chutes_core.miner.runtime.base import Ended, Runtime
from chutes_core.miner.store import MinerStore
from chutes_core.miner.validator_api import ValidatorApi
from chutes_core.wire.control import LaunchStatus

STEADY_S = 600.0
"""How long an instance must serve before earlier failures of its chute are forgotten."""
_GIVEN_BACK_AT_ONCE = 16
_UNPROVEN = frozenset({"requested", "listening", "challenged"})


class Follower:
    """Compares the books with what runs and with what validators say."""

    def __init__(
        self,
        books: Books,
        endings: Endings,
        *,
        runtime: Runtime,
        store: MinerStore,
        api: ValidatorApi,
        reports: Reports,
        backoff: BackOff,
        clock: Clock,
    ) -> None:
        self._books = books
        self._endings = endings
        self._runtime = runtime
        self._store = store
        self._api = api
        self._reports = reports
        self._backoff = backoff
        self._clock = clock

    async def adopt(self) -> None:
        """Take over what a former process of this miner left running; end what cannot go on."""
        await self._runtime.refresh()
        for record in self._store.launches():
            live = Live(record, since_us=self._clock.monotonic_us())
            self._books.live[record.launch_id] = live
            ended = None if live.over else self._runtime.ended(record.launch_id)
            if record.state == "listening" and ended is None:
                self._endings.open_way(record)
                logger.bind(launch_id=record.launch_id, port=record.port).info(
                    "running instance was adopted"
                )
            elif record.state == "listening":
                reason = reason_of(ended or Ended(None))
                await self._endings.end(live, reason, "it ended unwatched")
            elif record.state == "granted":
                detail = "the miner restarted during the launch"
                await self._endings.end(live, MINER_RESTARTED, detail)
        await self._remove_orphans()

    async def watch(self, validators: Sequence[Validator]) -> None:
        """Compare with the validators' lists, notice ended instances, repeat unheard reports."""
        await self._runtime.refresh()
        await self._remove_orphans()
        await asyncio.gather(*(self._compare(validator) for validator in validators))
        looks = (self._look(live) for live in list(self._books.live.values()))
        broken = [
            error
            for error in await asyncio.gather(*looks, return_exceptions=True)
            if error is not None
        ]
        if broken:  # one that cannot be ended now holds up no other
            raise broken[0]

    async def _look(self, live: Live) -> None:
        """Tell an end that was not heard; end what has ended."""
        if live.over:
            await self._endings.tell(live)
        elif live.failure and not live.ending:
            await self._endings.end(live, MINER_FAILED, live.failure)
        elif live.record.state == "listening" and not live.ending:
            ended = self._runtime.ended(live.record.launch_id)
            if ended is not None:
                await self._endings.end(live, reason_of(ended), "the instance has ended")

    async def _compare(self, validator: Validator) -> None:
        """Follow one validator's list of this miner's launches."""
        live = self._books.live
        known = {i for i, v in live.items() if v.record.validator_hotkey == validator.hotkey}
        asking = self._books.asks(validator.hotkey)
        try:
            listed = await self._api.launches(validator)
        except ChutesError as error:
            logger.bind(validator=validator.hotkey, code=error.code).debug("launches were not read")
            return
        states = {status.launch_id: status for status in listed.launches}
        for launch_id in known & live.keys():
            await self._follow(validator, live[launch_id], states.get(launch_id))
        lost = [s for s in states.values() if s.state != "gone" and s.launch_id not in live]
        for status in () if asking else lost[:_GIVEN_BACK_AT_ONCE]:
            await self._reports.lost(validator, status.launch_id)

    async def _follow(self, validator: Validator, live: Live, status: LaunchStatus | None) -> None:
        """Take over what the validator says of one launch."""
        if status is not None and status.state == "requested" and live.unheard:
            await self._reports.listening_again(validator, live.record)
        if status is not None and status.state not in _UNPROVEN:
            live.beside = ()
        if status is not None and status.state != "gone":
            live.word = status.state
            if status.state == "active":
                await self._serves(live)
            return
        if live.end_reason is not None:
            return
        live.end_reason = (status.reason if status else "") or UNKNOWN_LAUNCH
        detail = status.detail if status else ""
        logger.bind(launch_id=live.record.launch_id, reason=live.end_reason, detail=detail).info(
            "launch was ended by its validator"
        )

    async def _serves(self, live: Live) -> None:
        """Note that an instance is active; forget its chute's failures once it is so for long.

        Forgetting them at once would let a chute that dies after each start be started for ever.
        """
        now_us = self._clock.monotonic_us()
        live.active_since_us = live.active_since_us or now_us
        if now_us - live.active_since_us >= STEADY_S * 1e6:
            self._backoff.succeeded(live.record.validator_hotkey, live.record.chute_id)
        try:
            await self._runtime.settle(live.record.launch_id)
        except ChutesError as error:  # the next round tries again
            logger.bind(launch_id=live.record.launch_id, code=error.code).warning(
                "way out of an instance could not be cut: {}", error.message
            )

    async def _remove_orphans(self) -> None:
        """End instances of ours that belong to no launch, e.g. of a start that was cut short."""
        for launch_id in self._runtime.instances():
            if launch_id not in self._books.live:
                logger.bind(launch_id=launch_id).warning("orphaned instance was removed")
                await self._runtime.stop(launch_id, DRAIN_GRACE_S)
                self._runtime.forget(launch_id)
