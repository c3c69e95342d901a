"""Applies a plan: one launch from its grant to an instance that listens, and the end of it.

Path: plan -> `begin` (launcher: POST, bundle, image, instance; then relay and `listening`)
-> follower.watch -> `stop` (ending). Invariant: a grant is in the store before anything is done
with it, so that a miner that was killed finds every instance again (`adopt`) and either serves it
on or ends it.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Sequence

from loguru import logger

from chutes_core.base.clock import Clock, SystemClock
from chutes_core.base.errors import ChutesError, ProtocolError
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.cache.folders import Key
from chutes_core.miner.discovery import Validator
from chutes_core.miner.ending import DRAIN_GRACE_S, Endings
from chutes_core.miner.follower import Follower
from chutes_core.miner.launcher import Launcher
from chutes_core.miner.live import Books, Live
from chutes_core.miner.placement import Launch, Running, Stop
from chutes_core.miner.reasons import (
    CACHE_OVERRUN,
    MINER_ENDED,
    MINER_FAILED,
    host_said,
    unforeseen,
)
from chutes_core.miner.relay import Relay
from chutes_core.miner.reports import Reports
from chutes_core.miner.runtime.base import Runtime
from chutes_core.miner.store import LaunchRecord, MinerStore
from chutes_core.miner.validator_api import ValidatorApi
from chutes_core.wire.control import LOG_TAIL_CHARS, LaunchGrant, WantedChute
from chutes_core.wire.lease import Lease


class Deployer:
    """Brings launches up and down; ``lookup`` finds a checked validator by hotkey."""

    def __init__(
        self,
        *,
        launcher: Launcher,
        runtime: Runtime,
        relay: Relay,
        store: MinerStore,
        api: ValidatorApi,
        backoff: BackOff,
        lookup: Callable[[str], Validator | None],
        clock: Clock | None = None,
    ) -> None:
        self._launcher = launcher
        self._runtime = runtime
        self._store = store
        self._backoff = backoff
        self._clock = clock or SystemClock()
        self._reports = Reports(api, lookup)
        self.books = Books()
        self._endings = Endings(
            self.books,
            runtime=runtime,
            relay=relay,
            store=store,
            reports=self._reports,
            backoff=backoff,
            clock=self._clock,
        )
        self._follower = Follower(
            self.books,
            self._endings,
            runtime=runtime,
            store=store,
            api=api,
            reports=self._reports,
            backoff=backoff,
            clock=self._clock,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False

    def launch_ids(self) -> dict[str, str]:
        """Return GPU uuid -> launch id of every GPU that serves a launch."""
        return self.books.launch_ids()

    def busy(self) -> dict[str, str]:
        """Return GPU uuid -> validator of every GPU that is taken; see `Books.busy`."""
        return self.books.busy()

    def running(self) -> tuple[Running, ...]:
        """Return the launches as `placement.plan` sees them."""
        return self.books.running()

    def log_of(self, validator_hotkey: str, launch_id: str) -> str:
        """Return the last part of what an instance printed, for the validator it serves.

        Raises:
            NotFound: ``no_such_launch``.
        """
        self.books.of(validator_hotkey, launch_id)
        return self._runtime.log_tail(launch_id, LOG_TAIL_CHARS)

    def begin(self, action: Launch, validator: Validator, leases: Sequence[Lease]) -> None:
        """Start one launch in its own task; its GPUs count as busy from now on."""
        if self.draining:
            return
        self.books.ask(action)
        tried = _Try(action, validator)
        self._spawn(
            self._launch(tried, leases), lambda error: self._spawn(self._broke(tried, error))
        )

    def stop(self, action: Stop) -> None:
        """End a launch in a task of its own, drained first where the plan says so."""
        live = self.books.live.get(action.launch_id)
        if live is None or live.ending or live.leaving:
            return
        if action.drain:
            self._spawn(self._endings.leave(live, action.reason, ""))
        else:
            self._spawn(self._endings.end(live, action.reason, ""))

    def end_overrun(self, key: Key, detail: str) -> None:
        """End every launch of a chute whose models overran their bound, undrained: a disk fills."""
        for live in list(self.books.live.values()):
            record = live.record
            if Key(record.validator_hotkey, record.chute_id) == key and not live.over:
                self._spawn(self._endings.end(live, CACHE_OVERRUN, detail))

    async def adopt(self) -> None:
        """Take over what a former process of this miner left running; end what cannot go on."""
        await self._follower.adopt()

    async def watch(self, validators: Sequence[Validator]) -> None:
        """Compare with the validators' lists and with what runs."""
        await self._follower.watch(validators)

    async def leave(self, reason: str = MINER_ENDED, *, within_s: float) -> None:
        """Take nothing new, and let validators drain every instance that serves."""
        self.draining = True
        serving = [live for live in self.books.live.values() if not live.over]
        leaving = (
            self._endings.leave(live, reason, "the miner stops", within_s=within_s)
            for live in serving
            if live.word == "active"
        )
        await asyncio.gather(*leaving)

    async def drain(self, reason: str = MINER_ENDED) -> None:
        """End every launch and take no new one; unheard reports stay in the store."""
        self.draining = True
        open_now = [live for live in self.books.live.values() if not live.over]
        ends = (
            self._endings.end(live, reason, "the miner stopped", DRAIN_GRACE_S) for live in open_now
        )
        await asyncio.gather(*ends)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _launch(self, tried: "_Try", leases: Sequence[Lease]) -> None:
        action, validator = tried.action, tried.validator
        chute_id = action.chute.chute_id
        log = logger.bind(validator=validator.hotkey, chute_id=chute_id)
        try:
            grant = tried.grant = await self._launcher.ask(action, validator, leases)
            live = tried.live = self._take(grant, action, validator)
        except ChutesError as error:
            wait_s = self._backoff.failed(validator.hotkey, chute_id, error.code)
            log.bind(code=error.code, wait_s=wait_s).info("launch was refused: {}", error.message)
            return
        finally:
            self.books.answered(action)
        log.bind(launch_id=grant.launch_id, gpus=grant.gpu_uuids, reason=action.reason).info(
            "launch was granted"
        )
        if self.draining:
            await self._endings.end(live, MINER_ENDED, "the miner is stopping")
            return
        live.task = asyncio.current_task()
        try:
            await self._bring_up(grant, action, validator, live)
        except ChutesError as error:
            await self._endings.end(live, error.code, _said(error))
        except OSError as error:
            log.opt(exception=error).error("launch failed for its host")
            await self._endings.end(live, "host_failed", host_said(error))

    async def _broke(self, tried: "_Try", error: BaseException) -> None:
        """End what came of a launch at once, when its task died of something unforeseen."""
        action, validator = tried.action, tried.validator
        said = unforeseen(error)
        if tried.live is not None:
            tried.live.failure = said  # should its end break off, too: the next look tries again
            await self._endings.end(tried.live, MINER_FAILED, said)
            return
        self._backoff.failed(validator.hotkey, action.chute.chute_id, MINER_FAILED)
        if tried.grant is not None:
            await self._reports.failed(validator, tried.grant.launch_id, said)

    def _take(self, grant: LaunchGrant, action: Launch, validator: Validator) -> Live:
        known = self.books.live
        if grant.launch_id in known:  # another validator's instance must not be taken over
            raise ProtocolError("bad_grant", "the grant repeats the id of a launch that is known")
        record = LaunchRecord(
            launch_id=grant.launch_id,
            validator_hotkey=validator.hotkey,
            chute_id=grant.chute_id,
            version=grant.version,
            image_id=grant.image.image_id,
            image_sha256=grant.image.sha256,
            gpu_uuids=grant.gpu_uuids,
            ticket=grant.ticket,
            state="granted",
        )
        self._store.put_launch(record)
        chute = action.chute
        live = known[grant.launch_id] = Live(
            record,
            beside=action.idle_gpus,
            since_us=self._clock.monotonic_us(),
            rao_per_hour=chute.rao_per_hour if isinstance(chute, WantedChute) else 0,
        )
        return live

    async def _bring_up(
        self, grant: LaunchGrant, action: Launch, validator: Validator, live: Live
    ) -> None:
        ready = await self._launcher.bring_up(grant, action, validator)
        live.record = dataclasses.replace(
            live.record, state="listening", port=ready.port, public_key=ready.public_key
        )
        self._store.put_launch(live.record)
        self._endings.open_way(live.record)
        await self._reports.listening(validator, grant.launch_id, ready.public_key)
        logger.bind(launch_id=grant.launch_id, port=ready.port).info("instance listened")

    def _spawn(
        self,
        work: Coroutine[None, None, None],
        broke: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._finished(done, broke))

    def _finished(self, task: "asyncio.Task[None]", broke: Callable[[BaseException], None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.opt(exception=error).bind(code="internal").error("launch task failed")
            broke(error)


@dataclasses.dataclass
class _Try:
    """One launch that is being tried, as far as it has come."""

    action: Launch
    validator: Validator
    grant: LaunchGrant | None = None
    live: Live | None = None


def _said(error: ChutesError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message
