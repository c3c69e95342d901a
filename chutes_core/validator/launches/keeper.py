"""What keeps launches honest over time: deadlines, renewals, leases, drains, and the restart.

Path: validator/loops -> here -> instance and store. Invariant: an instance that cannot be renewed
leaves the snapshot before its own lease lapses, so no caller is sent to a fenced one.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError, Conflict
from chutes_core.validator.autoscale.wanted import Load
from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.launches import Launch, LaunchState, Reason
from chutes_core.validator.launches import instance
from chutes_core.validator.launches.leases import LeaseBook
from chutes_core.validator.launches.lifecycle import Lifecycle
from chutes_core.validator.launches.ports import ChainView, Changed
from chutes_core.validator.launches.rollover import Rollover, may_go
from chutes_core.validator.launches.service import LaunchLimits
from chutes_core.validator.launches.wanted import Wanted, loads_of
from chutes_core.validator.store.database import Store

FAILED_RENEWALS = 2
DRAIN_GRACE_S = 30
_BEFORE_PROOF = (LaunchState.REQUESTED, LaunchState.LISTENING)
_ON_THE_WAY = (LaunchState.CHALLENGED, LaunchState.VERIFIED, LaunchState.STARTING)


class Keeper:
    """The periodic work on launches."""

    def __init__(
        self,
        *,
        store: Store,
        chain: ChainView,
        leases: LeaseBook,
        wanted: Wanted,
        lifecycle: Lifecycle,
        clock: Clock,
        limits: LaunchLimits,
        changed: Changed,
    ) -> None:
        self._store = store
        self._chain = chain
        self._leases = leases
        self._wanted = wanted
        self._lifecycle = lifecycle
        self._clock = clock
        self._limits = limits
        self._changed = changed
        self._failed: Counter[str] = Counter()
        self._made_room_s: dict[str, int] = {}
        self._leaving: set[str] = set()

    async def resume(self) -> int:
        """After a restart: end what was on its way, keep what is active; return how many are.

        Active instances need no new proof: their roots are in the store, and the next renewal
        reaches them or ends them.
        """
        kept = 0
        for launch in await asyncio.to_thread(self._store.launches.open):
            if launch.state is LaunchState.ACTIVE:
                kept += 1
            else:
                await self._lifecycle.end(launch.launch_id, Reason.VALIDATOR_RESTARTED)
        return kept

    def leave(self, launch_id: str) -> None:
        """Note that a miner asks for an instance's calls to be taken away; a sweep does it."""
        self._leaving.add(launch_id)

    async def sweep(self) -> None:
        """End or drain every launch that may not go on as it is."""
        now_s = self._clock.now_s()
        launches = list(await asyncio.to_thread(self._store.launches.open))
        self._leaving &= {launch.launch_id for launch in launches}
        jobs = await asyncio.to_thread(self._store.jobs.claimed)
        loads = loads_of(launch for launch in launches if launch.launch_id not in jobs)
        for launch in launches:
            reason = await asyncio.to_thread(self._objection, launch, now_s, loads, jobs)
            if reason is None:
                continue
            if launch.state is LaunchState.ACTIVE:
                await self.drain(launch, reason)
            else:
                await self._lifecycle.end(launch.launch_id, reason)
                self._lifecycle.forget(launch.launch_id)
        for launch in await asyncio.to_thread(self._replaced, now_s):
            await self.drain(launch, Reason.SUPERSEDED)

    async def renew(self) -> None:
        """Prolong the lease of every active instance; twice unreachable ends its launch."""
        launches = await asyncio.to_thread(self._store.launches.open)
        active = [launch for launch in launches if launch.state is LaunchState.ACTIVE]
        await asyncio.gather(*(self._renew(launch) for launch in active))

    async def drain(self, launch: Launch, reason: Reason) -> None:
        """Take an active instance out of routing, let its calls finish, and stop it."""
        try:
            await asyncio.to_thread(
                self._store.launches.advance,
                launch.launch_id,
                LaunchState.ACTIVE,
                LaunchState.DRAINING,
            )
        except Conflict:
            return  # it ended meanwhile
        await self._changed()
        logger.info("launch drains", launch=launch.launch_id, reason=reason.value)
        try:
            address = await asyncio.to_thread(self._lifecycle.address, launch)
            await instance.stop(address, reason=reason.value, grace_s=DRAIN_GRACE_S)
        except ChutesError as error:
            logger.warning("stop failed", launch=launch.launch_id, error=error.code)
        await self._lifecycle.end(launch.launch_id, reason)

    async def _renew(self, launch: Launch) -> None:
        lease_until_s = self._clock.now_s() + self._limits.lease_renewal_s
        try:
            address = await asyncio.to_thread(self._lifecycle.address, launch)
            await instance.renew(address, lease_until_s)
        except ChutesError as error:
            self._failed[launch.launch_id] += 1
            logger.warning("renewal failed", launch=launch.launch_id, error=error.code)
            if self._failed[launch.launch_id] >= FAILED_RENEWALS:
                del self._failed[launch.launch_id]
                await self._lifecycle.end(launch.launch_id, Reason.UNREACHABLE, str(error))
            return
        self._failed.pop(launch.launch_id, None)
        with contextlib.suppress(Conflict):  # it ended meanwhile
            await asyncio.to_thread(
                self._store.launches.update,
                launch.launch_id,
                LaunchState.ACTIVE,
                lease_until_s=lease_until_s,
            )

    def _objection(
        self,
        launch: Launch,
        now_s: int,
        loads: dict[tuple[str, str], Load],
        jobs: frozenset[str],
    ) -> Reason | None:
        """Return why a launch may not go on, or None."""
        if launch.state in _BEFORE_PROOF and now_s >= launch.deadline_s:
            return Reason.LISTEN_DEADLINE
        if self._chain.miner(launch.miner_hotkey) is None:
            return Reason.DEREGISTERED
        if launch.admission:
            return None
        if launch.state in _ON_THE_WAY:
            return None  # a proof or a start-up in flight has its own, longer deadlines
        chute = self._store.chutes.get(launch.chute_id)
        if chute is None:
            return Reason.CHUTE_DELETED
        if self._store.notices.due(chute.user_id, now_s):
            return Reason.NOT_DEVELOPER
        if launch.state is not LaunchState.ACTIVE:
            return None
        if launch.launch_id in self._leaving:
            return Reason.MINER_ENDED
        objection = self._lease_objection(launch)
        if launch.launch_id in jobs:
            return objection  # it is a job's, to the job's end, whatever is called or deployed
        if objection is None and chute.version == launch.version:
            objection = self._scale_objection(chute, loads, now_s)
        return objection  # what replaces an older version is seen to by _roll

    def _replaced(self, now_s: int) -> list[Launch]:
        """Return the instances of older versions that may go now."""
        jobs = self._store.jobs.claimed()
        launches = [one for one in self._store.launches.open() if one.launch_id not in jobs]
        loads = loads_of(launches)
        old: dict[str, list[Launch]] = defaultdict(list)
        for launch in launches:
            if launch.state is LaunchState.ACTIVE:
                old[launch.chute_id].append(launch)
        found: list[Launch] = []
        for chute_id, active in old.items():
            chute = self._store.chutes.get(chute_id)
            if chute is not None and any(one.version != chute.version for one in active):
                found += self._replaced_of(chute, active, loads, now_s)
        return found

    def _replaced_of(
        self, chute: Chute, active: list[Launch], loads: dict[tuple[str, str], Load], now_s: int
    ) -> tuple[Launch, ...]:
        load = loads.get((chute.chute_id, chute.version), Load())
        since_s = max(chute.updated_at_s, self._made_room_s.get(chute.chute_id, 0))
        last = self._store.launches.last_gone_of(chute.chute_id, chute.version)
        state = Rollover(
            old=[one for one in active if one.version != chute.version],
            fresh=load,
            wanted=self._wanted.target_of(chute, load, now_s),
            waited_s=now_s - since_s,
            last_end=None if last is None else last.reason,
        )
        going = may_go(state, grace_s=self._limits.rollover_grace_s)
        if going:
            self._made_room_s[chute.chute_id] = now_s
        return going

    def _lease_objection(self, launch: Launch) -> Reason | None:
        block = self._chain.block
        for uuid in launch.gpu_uuids:
            if self._leases.conflicted(launch.miner_hotkey, uuid, block):
                return Reason.LEASE_CONFLICT
            if not self._leases.held(launch.miner_hotkey, uuid, block):
                return Reason.LEASE_LAPSED
        return None

    def _scale_objection(
        self, chute: Chute, loads: dict[tuple[str, str], Load], now_s: int
    ) -> Reason | None:
        load = loads.get((chute.chute_id, chute.version), Load())
        return Reason.SCALED_DOWN if self._wanted.target_of(chute, load, now_s) == 0 else None
