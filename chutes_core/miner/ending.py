"""How a launch ends: drained where that is possible, its way closed, its instance gone, told.

Path: deployer and follower -> here. Invariants: a launch's end happens exactly once; it is in the
store with its reason before its validator is told; and an instance that serves is asked to leave
first, so that its calls can end.
"""

import asyncio
import dataclasses

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.live import Books, End, Live
from chutes_core.miner.reasons import LEFT_IN_PEACE, NO_FAULT
from chutes_core.miner.relay import Relay
from chutes_core.miner.reports import Reports
from chutes_core.miner.runtime.base import Runtime
from chutes_core.miner.store import LaunchRecord, MinerStore

STOP_GRACE_S = 10.0
DRAIN_GRACE_S = 3.0
LEAVE_S = 35.0
"""How long calls of an instance that was told to stop may go on: the validator gives them 30 s."""
_POLL_S = 0.25
_DETAIL_CHARS = 800
_TAIL_CHARS = 3000


class Endings:
    """Ends launches."""

    def __init__(
        self,
        books: Books,
        *,
        runtime: Runtime,
        relay: Relay,
        store: MinerStore,
        reports: Reports,
        backoff: BackOff,
        clock: Clock,
    ) -> None:
        self._books = books
        self._runtime = runtime
        self._relay = relay
        self._store = store
        self._reports = reports
        self._backoff = backoff
        self._clock = clock

    def open_way(self, record: LaunchRecord) -> None:
        """Let the relay carry connections to an instance."""
        ticket = bytes.fromhex(record.ticket)
        host = self._runtime.host(record.launch_id)
        self._relay.register(record.launch_id, ticket=ticket, port=record.port, host=host)

    async def leave(
        self, live: Live, reason: str, detail: str, *, within_s: float = LEAVE_S
    ) -> None:
        """Ask the validator to drain an instance that serves, wait for its exit, and end it.

        A validator that does not hear, and an instance that serves nobody, are not waited for.
        """
        if live.ending or live.leaving:
            return
        live.leaving = True
        try:
            if (
                live.word == "active"
                and within_s > 0
                and await self._reports.leaving(live.record, reason)
            ):
                await self._exited(live, within_s)
            await self.end(live, reason, detail, DRAIN_GRACE_S)
        finally:
            live.leaving = False

    async def end(
        self, live: Live, reason: str, detail: str, grace_s: float = STOP_GRACE_S
    ) -> None:
        """End a launch once: stop its instance, close its way, keep the end, tell the validator."""
        if live.ending:
            return
        live.ending = True
        try:
            await self._end(live, reason, detail, grace_s)
        finally:
            if not live.over:  # it broke off: whoever comes next must be able to end it
                live.ending = False

    async def _end(self, live: Live, reason: str, detail: str, grace_s: float) -> None:
        await _cancel(live.task)
        if live.end_reason in LEFT_IN_PEACE and live.active_since_us:
            await self._exited(live, LEAVE_S)  # its validator has told it to finish its calls
        launch_id = live.record.launch_id
        await self._runtime.stop(launch_id, grace_s)
        self._relay.unregister(launch_id)
        reason = (live.end_reason or reason)[:64]
        if reason not in NO_FAULT:
            self._backoff.failed(live.record.validator_hotkey, live.record.chute_id, reason)
        self._keep(live, reason, detail)
        self._runtime.forget(launch_id)
        logger.bind(launch_id=launch_id, reason=reason, detail=detail[-200:]).info(
            "instance was ended"
        )
        await self.tell(live)

    async def tell(self, live: Live) -> None:
        """Report an end; forget the launch once its validator has heard, or knew it already."""
        if live.end_reason is None and not await self._reports.gone(live.record):
            return
        self._store.delete_launch(live.record.launch_id)
        self._books.live.pop(live.record.launch_id, None)

    def _keep(self, live: Live, reason: str, detail: str) -> None:
        record = live.record
        tail = self._runtime.log_tail(record.launch_id, _TAIL_CHARS)
        live.record = dataclasses.replace(
            record,
            state="ended",
            end_reason=reason,
            end_detail=f"{detail[-_DETAIL_CHARS:]}\n{tail}".strip(),
        )
        self._store.put_launch(live.record)
        now_s = self._clock.now_s()
        self._books.ended(
            End(record.launch_id, record.chute_id, record.validator_hotkey, reason, detail, now_s)
        )

    async def _exited(self, live: Live, within_s: float) -> bool:
        """Wait until an instance has ended by itself."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while loop.time() < deadline:
            await self._runtime.refresh()
            if self._runtime.ended(live.record.launch_id) is not None:
                return True
            await asyncio.sleep(_POLL_S)
        return False


async def _cancel(task: "asyncio.Task[None] | None") -> None:
    if task is None or task.done() or task is asyncio.current_task():
        return
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
