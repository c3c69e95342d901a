"""Applies a plan: one launch from its grant to its end, and the end of it told to the validator.

Path: plan -> `begin` (launcher: POST, bundle, image, instance; then relay and `listening`)
-> `watch` -> `stop`. A launch's end goes through `_end` exactly once. Invariants: a grant is in
the store before anything is done with it, so that a miner that was killed finds every instance
again (`adopt`) and either serves it on or ends it; and a GPU counts as taken until the instance on
it is really gone.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from loguru import logger

from chutes_core.base.errors import ChutesError, NotFound, ProtocolError
from chutes_core.miner.backoff import BackOff
from chutes_core.miner.discovery import Validator
from chutes_core.miner.launcher import Launcher
from chutes_core.miner.placement import Launch, Running, Stop
from chutes_core.miner.reasons import (
    MINER_ENDED,
    MINER_LOST,
    MINER_RESTARTED,
    NO_FAULT,
    UNKNOWN_LAUNCH,
    reason_of,
)
from chutes_core.miner.relay import Relay
from chutes_core.miner.runtime.base import Ended, Runtime
from chutes_core.miner.store import LaunchRecord, MinerStore
from chutes_core.miner.validator_api import ValidatorApi
from chutes_core.wire.control import LOG_TAIL_CHARS, LaunchEvent, LaunchGrant, LaunchStatus
from chutes_core.wire.lease import Lease
from chutes_core.wire.system import is_admission

STOP_GRACE_S = 10.0
DRAIN_GRACE_S = 3.0
_DETAIL_CHARS = 800
_TAIL_CHARS = 3000
_LISTENING_TRIES = 5
_RETRY_S = 1.0
_GIVEN_BACK_AT_ONCE = 16
_UNPROVEN = frozenset({"requested", "listening", "challenged"})
_PASSING = frozenset({"peer_unreachable", "peer_timeout"})


@dataclass
class _Live:
    """One launch in this process; ``end_reason`` is the validator's word that it is over.

    ``beside`` are idle GPUs that prove with it until it is proven.
    """

    record: LaunchRecord
    beside: tuple[str, ...] = ()
    task: asyncio.Task[None] | None = None
    end_reason: str | None = None
    ending: bool = False

    @property
    def over(self) -> bool:
        return self.record.state == "ended"

    @property
    def unheard(self) -> bool:
        """Tell whether the instance listens and no task is about to say so (after a restart)."""
        idle = self.task is None or self.task.done()
        return self.record.state == "listening" and idle and not self.ending


class Deployer:
    """Keeps the books of this node's launches; ``lookup`` finds a checked validator by hotkey."""

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
    ) -> None:
        self._launcher = launcher
        self._runtime = runtime
        self._relay = relay
        self._store = store
        self._api = api
        self._backoff = backoff
        self._lookup = lookup
        self._live: dict[str, _Live] = {}
        self._asking: dict[tuple[str, ...], str] = {}
        self._attesting: set[tuple[str, ...]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    def launch_ids(self) -> dict[str, str]:
        """Return GPU uuid -> launch id of every GPU that serves a launch."""
        held = [live.record for live in self._live.values() if not live.over]
        return {gpu: record.launch_id for record in held for gpu in record.gpu_uuids}

    def busy(self) -> dict[str, str]:
        """Return GPU uuid -> validator, for GPUs that serve a launch or are offered for one.

        A node attestation is over in seconds, so it prolongs no lease.
        """
        return {
            gpu: run.validator_hotkey
            for run in self.running()
            if not run.admission
            for gpu in run.gpu_uuids
        }

    def running(self) -> tuple[Running, ...]:
        """Return the launches, granted or asked for, as `placement.plan` sees them."""
        held = [
            Running(
                live.record.launch_id,
                live.record.validator_hotkey,
                live.record.gpu_uuids,
                live.end_reason,
                live.beside,
                is_admission(live.record.chute_id),
            )
            for live in self._live.values()
            if not live.over
        ]
        asked = [
            Running(f"asking {gpus[0]}", who, gpus, admission=gpus in self._attesting)
            for gpus, who in self._asking.items()
        ]
        return (*held, *asked)

    def log_of(self, validator_hotkey: str, launch_id: str) -> str:
        """Return the last part of what an instance printed, for the validator it serves.

        Raises:
            NotFound: ``no_such_launch``, also where the launch is another validator's.
        """
        live = self._live.get(launch_id)
        if live is None or live.record.validator_hotkey != validator_hotkey:
            raise NotFound("no_such_launch", "this miner holds no such launch of yours")
        return self._runtime.log_tail(launch_id, LOG_TAIL_CHARS)

    def begin(self, action: Launch, validator: Validator, leases: Sequence[Lease]) -> None:
        """Start one launch in its own task; its GPUs count as busy from now on."""
        if self._draining:
            return
        gpus = (*action.gpu_uuids, *action.idle_gpus)
        self._asking[gpus] = validator.hotkey
        if is_admission(action.chute.chute_id):
            self._attesting.add(gpus)
        self._spawn(self._launch(action, validator, leases))

    def stop(self, action: Stop) -> None:
        """End a launch in a task of its own."""
        live = self._live.get(action.launch_id)
        if live is not None and not live.ending:
            self._spawn(self._end(live, action.reason, ""))

    async def adopt(self) -> None:
        """Take over what a former process of this miner left running; end what cannot go on."""
        await self._runtime.refresh()
        for record in self._store.launches():
            live = self._live[record.launch_id] = _Live(record)
            log = logger.bind(launch_id=record.launch_id, port=record.port)
            ended = None if live.over else self._runtime.ended(record.launch_id)
            if record.state == "listening" and ended is None:
                self._open_way(record)
                log.info("running instance was adopted")
            elif record.state == "listening":
                await self._end(live, reason_of(ended or Ended(None)), "it ended unwatched")
            elif record.state == "granted":
                await self._end(live, MINER_RESTARTED, "the miner restarted during the launch")
        await self._remove_orphans()

    async def watch(self, validators: Sequence[Validator]) -> None:
        """Compare with the validators' lists, notice ended instances, repeat unheard reports."""
        await self._runtime.refresh()
        await self._remove_orphans()
        await asyncio.gather(*(self._compare(validator) for validator in validators))
        for live in list(self._live.values()):
            if live.over:
                await self._tell_end(live)
            elif live.record.state == "listening" and not live.ending:
                ended = self._runtime.ended(live.record.launch_id)
                if ended is not None:
                    await self._end(live, reason_of(ended), "the instance has ended")

    async def drain(self, reason: str = MINER_ENDED) -> None:
        """End every launch and take no new one; unheard reports stay in the store."""
        self._draining = True
        open_now = [live for live in self._live.values() if not live.over]
        await asyncio.gather(
            *(self._end(live, reason, "the miner stopped", DRAIN_GRACE_S) for live in open_now)
        )
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _launch(self, action: Launch, validator: Validator, leases: Sequence[Lease]) -> None:
        chute_id = action.chute.chute_id
        log = logger.bind(validator=validator.hotkey, chute_id=chute_id)
        try:
            grant = await self._launcher.ask(action, validator, leases)
            live = self._take(grant, validator)
            live.beside = action.idle_gpus
        except ChutesError as error:
            wait_s = self._backoff.failed(validator.hotkey, chute_id, error.code)
            log.bind(code=error.code, wait_s=wait_s).info("launch was refused: {}", error.message)
            return
        finally:
            self._asking.pop((*action.gpu_uuids, *action.idle_gpus), None)
            self._attesting.discard((*action.gpu_uuids, *action.idle_gpus))
        log.bind(launch_id=grant.launch_id, gpus=grant.gpu_uuids).info("launch was granted")
        if self._draining:
            await self._end(live, MINER_ENDED, "the miner is stopping")
            return
        live.task = asyncio.current_task()
        try:
            await self._bring_up(grant, action, validator, live)
        except ChutesError as error:
            await self._end(live, error.code, _said(error))
        except OSError as error:
            await self._end(live, "host_failed", str(error))

    def _take(self, grant: LaunchGrant, validator: Validator) -> _Live:
        if grant.launch_id in self._live:  # another validator's instance must not be taken over
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
        live = self._live[grant.launch_id] = _Live(record)
        return live

    async def _bring_up(
        self, grant: LaunchGrant, action: Launch, validator: Validator, live: _Live
    ) -> None:
        ready = await self._launcher.bring_up(grant, action, validator)
        live.record = dataclasses.replace(
            live.record, state="listening", port=ready.port, public_key=ready.public_key
        )
        self._store.put_launch(live.record)
        self._open_way(live.record)
        event = LaunchEvent(event="listening", instance_public_key=ready.public_key)
        await self._report_listening(validator, grant.launch_id, event)
        logger.bind(launch_id=grant.launch_id, port=ready.port).info("instance listened")

    def _open_way(self, record: LaunchRecord) -> None:
        ticket = bytes.fromhex(record.ticket)
        host = self._runtime.host(record.launch_id)
        self._relay.register(record.launch_id, ticket=ticket, port=record.port, host=host)

    async def _report_listening(
        self, validator: Validator, launch_id: str, event: LaunchEvent
    ) -> None:
        """Report with a few tries, for a validator that is restarting."""
        for left in reversed(range(_LISTENING_TRIES)):
            try:
                await self._api.report(validator, launch_id, event)
                return
            except ChutesError as error:
                if left == 0 or error.code not in _PASSING:
                    raise
            await asyncio.sleep(_RETRY_S)

    async def _compare(self, validator: Validator) -> None:
        """Follow one validator's list of this miner's launches."""
        known = {i for i, v in self._live.items() if v.record.validator_hotkey == validator.hotkey}
        asking = validator.hotkey in self._asking.values()
        try:
            listed = await self._api.launches(validator)
        except ChutesError as error:
            logger.bind(validator=validator.hotkey, code=error.code).debug("launches were not read")
            return
        states = {status.launch_id: status for status in listed.launches}
        for launch_id in known & self._live.keys():
            await self._follow(validator, self._live[launch_id], states.get(launch_id))
        lost = [s for s in states.values() if s.state != "gone" and s.launch_id not in self._live]
        for status in () if asking else lost[:_GIVEN_BACK_AT_ONCE]:
            await self._give_back(validator, status)

    async def _follow(self, validator: Validator, live: _Live, status: LaunchStatus | None) -> None:
        """Take over what the validator says of one launch."""
        record = live.record
        if status is not None and status.state == "requested" and live.unheard:
            event = LaunchEvent(event="listening", instance_public_key=record.public_key)
            await self._report(validator, record.launch_id, event)
        if status is not None and status.state not in _UNPROVEN:
            live.beside = ()
        if status is not None and status.state == "active":
            self._backoff.succeeded(record.validator_hotkey, record.chute_id)
            await self._settle(record.launch_id)
        if (status is not None and status.state != "gone") or live.end_reason is not None:
            return
        live.end_reason = (status.reason if status else "") or UNKNOWN_LAUNCH
        detail = status.detail if status else ""
        logger.bind(launch_id=record.launch_id, reason=live.end_reason, detail=detail).info(
            "launch was ended by its validator"
        )

    async def _remove_orphans(self) -> None:
        """End instances of ours that belong to no launch, e.g. of a start that was cut short."""
        for launch_id in self._runtime.instances():
            if launch_id not in self._live:
                logger.bind(launch_id=launch_id).warning("orphaned instance was removed")
                await self._runtime.stop(launch_id, DRAIN_GRACE_S)
                self._runtime.forget(launch_id)

    async def _settle(self, launch_id: str) -> None:
        """Take an active instance's way out; where that fails, the next round tries again."""
        try:
            await self._runtime.settle(launch_id)
        except ChutesError as error:
            logger.bind(launch_id=launch_id, code=error.code).warning(
                "way out of an instance could not be cut: {}", error.message
            )

    async def _give_back(self, validator: Validator, status: LaunchStatus) -> None:
        """Free a launch that the validator holds open and this miner knows nothing of."""
        event = LaunchEvent(event="gone", reason=MINER_LOST, detail="the miner lost this launch")
        await self._report(validator, status.launch_id, event)

    async def _report(self, validator: Validator, launch_id: str, event: LaunchEvent) -> None:
        """Report once; where it fails, the next round sees the same state and tries again."""
        log = logger.bind(launch_id=launch_id, reason=event.reason, validator=validator.hotkey)
        try:
            await self._api.report(validator, launch_id, event)
            log.info("{} was reported in a later round", event.event)
        except ChutesError as error:
            log.bind(code=error.code).warning("{} could not be reported", event.event)

    async def _end(
        self, live: _Live, reason: str, detail: str, grace_s: float = STOP_GRACE_S
    ) -> None:
        """End a launch once: close its way, stop its instance, keep the end, tell the validator."""
        if live.ending:
            return
        live.ending = True
        await _cancel(live.task)
        launch_id = live.record.launch_id
        await self._runtime.stop(launch_id, grace_s)
        self._relay.unregister(launch_id)
        reason = (live.end_reason or reason)[:64]
        if reason not in NO_FAULT:
            self._backoff.failed(live.record.validator_hotkey, live.record.chute_id, reason)
        tail = self._runtime.log_tail(launch_id, _TAIL_CHARS)
        live.record = dataclasses.replace(
            live.record,
            state="ended",
            end_reason=reason,
            end_detail=f"{detail[-_DETAIL_CHARS:]}\n{tail}".strip(),
        )
        self._store.put_launch(live.record)
        self._runtime.forget(launch_id)
        logger.bind(launch_id=launch_id, reason=reason, detail=detail[-200:]).info(
            "instance was ended"
        )
        await self._tell_end(live)

    async def _tell_end(self, live: _Live) -> None:
        """Report an end; forget the launch once its validator has heard, or knew it already."""
        record = live.record
        if live.end_reason is None and not await self._is_heard(record):
            return
        self._store.delete_launch(record.launch_id)
        self._live.pop(record.launch_id, None)

    async def _is_heard(self, record: LaunchRecord) -> bool:
        validator = self._lookup(record.validator_hotkey)
        if validator is None:
            return False
        event = LaunchEvent(event="gone", reason=record.end_reason, detail=record.end_detail)
        try:
            await self._api.report(validator, record.launch_id, event)
        except NotFound:
            return True  # the validator has forgotten it: nothing is left to tell
        except ChutesError as error:
            logger.bind(launch_id=record.launch_id, code=error.code).warning(
                "end of a launch was not heard; it will be told again"
            )
            return False
        return True

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.opt(exception=task.exception()).bind(code="internal").error("launch task failed")


def _said(error: ChutesError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is None or task.done() or task is asyncio.current_task():
        return
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
