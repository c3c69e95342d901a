"""Light challenges of active instances: out of routing, drained, proven again, back into routing.

Path: validator/loops -> here -> drains -> attest -> lifecycle. The instance keeps its keys; a
challenge is built ahead for each. Several can be challenged at the same instant (`challenge`), so
that one GPU behind two of them is late. A wrong answer ends the launch; a late one is inconclusive
and is tried again, at most `FRESH_TRIES` times an hour, then it ends the launch too. One that is
never without calls is waited for longer each time, and in the end counts as late (see `drains`).

Invariant: an instance that is being challenged gets no call and one proof at a time, and one that
is paused always comes back or ends, whatever goes wrong here; who has passed comes back at once,
however long others take that were challenged with it.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError
from chutes_core.validator.domain.launches import Launch, LaunchState, Reason
from chutes_core.validator.domain.verdicts import Attestation, AttestPlan, Prebuilt
from chutes_core.validator.launches import instance
from chutes_core.validator.launches.admissions import FRESH_TRIES, HOUR_S
from chutes_core.validator.launches.drains import Drains
from chutes_core.validator.launches.lifecycle import Lifecycle
from chutes_core.validator.launches.pauses import Away, Pauses
from chutes_core.validator.launches.plans import Plans
from chutes_core.validator.launches.ports import Attestor, Changed
from chutes_core.validator.store.database import Store

RETRY_S = 60
STOP_GRACE_S = 5
LOOK_S = 5.0
AT_ONCE = 8
"""Instances that are challenged or waited for at once, of different chutes; a round has its own."""


class Lights:
    """Challenges instances again while they live.

    Args:
        drains: waits until an instance has no calls.
        interval_s: an instance is challenged so often; 0 never.
    """

    def __init__(
        self,
        *,
        store: Store,
        attestor: Attestor,
        plans: Plans,
        lifecycle: Lifecycle,
        pauses: Pauses,
        drains: Drains,
        changed: Changed,
        clock: Clock,
        interval_s: int,
    ) -> None:
        self._store = store
        self._attestor = attestor
        self._plans = plans
        self._lifecycle = lifecycle
        self._pauses = pauses
        self._drains = drains
        self._changed = changed
        self._clock = clock
        self._interval_s = interval_s
        self._due_s: dict[str, int] = {}
        self._late: dict[str, list[int]] = defaultdict(list)
        self._prebuilt: dict[str, Prebuilt] = {}
        self._one: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by launch

    async def run_once(self) -> int:
        """Challenge every instance that is due, until none is; return how many that was.

        One that has to be waited for holds up no other; of a chute one is challenged at a time.
        """
        if not self._interval_s:
            return 0
        count = 0
        under_way: dict[asyncio.Task[None], Launch] = {}
        failed: list[BaseException] = []
        try:
            while True:
                for launch in await self._due(under_way.values()):
                    under_way[asyncio.create_task(self.challenge_one(launch))] = launch
                    count += 1
                if not under_way:
                    break
                done, _ = await asyncio.wait(
                    under_way, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    del under_way[task]
                    if (error := task.exception()) is not None:
                        failed.append(error)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        if failed:
            raise failed[0]  # the loop's edge counts it; all others were challenged
        return count

    async def challenge_one(self, launch: Launch) -> None:
        """Challenge one active instance and draw the consequences."""
        self._again(launch, RETRY_S)  # also where something breaks
        await self.challenge([launch])

    async def challenge(
        self, launches: Sequence[Launch], *, least_us: int = 0, beside: Sequence[AttestPlan] = ()
    ) -> tuple[Attestation, ...]:
        """Challenge active instances at the same instant and draw the consequences.

        Args:
            launches: active ones; each is out of routing meanwhile.
            least_us: the work takes an honest GPU so long at least.
            beside: other attestations that start at that instant.

        Returns:
            The outcomes of those beside; their consequences are the caller's.
        """
        launches = await self._without_jobs(launches)
        ids = [launch.launch_id for launch in launches]
        with Away(self._pauses, ids, self._changed) as away:
            await self._changed()
            round_ = len(ids) > 1 or bool(beside)
            quiet = await asyncio.gather(
                *(self._drains.quiet(launch_id, others_wait=round_) for launch_id in ids)
            )
            ready = [launch for launch, done in zip(launches, quiet, strict=True) if done]
            async with contextlib.AsyncExitStack() as stack:
                for launch_id in sorted(launch.launch_id for launch in ready):
                    await stack.enter_async_context(self._one[launch_id])
                outcomes, others = await self._attest(ready, least_us, beside, away.back)
                for launch, outcome in outcomes:
                    self._drains.proven(launch.launch_id)
                    await self._conclude_alone(launch, outcome)
            await away.settled()
        for launch, done in zip(launches, quiet, strict=True):
            if not done:
                await self._not_quiet(launch)
        await self._changed()
        for launch in launches:
            if launch.launch_id not in {done.launch_id for done, _ in outcomes}:
                self._again(launch, RETRY_S)
        for launch, outcome in outcomes:
            if outcome.passed and not least_us:
                await self._build_ahead(launch, outcome)
        return others

    async def _attest(
        self,
        launches: Sequence[Launch],
        least_us: int,
        beside: Sequence[AttestPlan],
        back: Callable[[str], None],
    ) -> tuple[list[tuple[Launch, Attestation]], tuple[Attestation, ...]]:
        planned: list[tuple[Launch, AttestPlan]] = []
        for launch in launches:
            prebuilt = None if least_us else self._prebuilt.pop(launch.launch_id, None)
            plan = await asyncio.to_thread(self._plan, launch, prebuilt, least_us)
            if plan is not None:
                planned.append((launch, plan))
        plans = [*(plan for _, plan in planned), *beside]
        if not plans:
            return [], ()

        def passed(place: int) -> None:
            if place < len(planned):  # who has passed waits for no other to have calls again
                back(planned[place][0].launch_id)

        outcomes = await self._attestor.attest_together(plans, passed=passed)
        of_launches = [(launch, one) for (launch, _), one in zip(planned, outcomes, strict=False)]
        return of_launches, tuple(outcomes[len(planned) :])

    def _plan(self, launch: Launch, prebuilt: Prebuilt | None, least_us: int) -> AttestPlan | None:
        now = self._store.launches.get(launch.launch_id)
        if now is None or now.state is not LaunchState.ACTIVE:
            return None  # it ended while it was waited for
        return self._plans.again(now, prebuilt=prebuilt, least_us=least_us)

    async def _conclude_alone(self, launch: Launch, outcome: Attestation) -> None:
        """Draw one instance's consequences; what breaks there costs no other its own."""
        try:
            await self._conclude(launch, outcome)
        except Exception as error:  # noqa: BLE001 # each consequence is an edge of its own
            self._again(launch, RETRY_S)
            logger.opt(exception=error).error(
                "a challenge's consequence failed",
                launch=launch.launch_id,
                verdict=outcome.reason.value,
            )

    async def _conclude(self, launch: Launch, outcome: Attestation) -> None:
        await asyncio.to_thread(self._lifecycle.record, launch, outcome)
        self._again(launch, self._interval_s)
        if outcome.passed:
            self._late.pop(launch.launch_id, None)
            return
        failed = any(gpu.failed for gpu in outcome.proof.gpus)
        if not failed and self._may_try_again(launch):
            self._again(launch, RETRY_S)
            logger.warning(
                "light challenge inconclusive",
                launch=launch.launch_id,
                reason=outcome.reason.value,
                detail=outcome.detail,
            )
            return
        await self._stop(launch, outcome.reason)
        await self._lifecycle.end(launch.launch_id, outcome.reason, outcome.detail)

    def _may_try_again(self, launch: Launch) -> bool:
        now_s = self._clock.now_s()
        times = [at for at in self._late[launch.launch_id] if now_s - at < HOUR_S]
        self._late[launch.launch_id] = [*times, now_s]
        return len(times) < FRESH_TRIES

    async def _stop(self, launch: Launch, reason: Reason) -> None:
        with contextlib.suppress(ChutesError):  # it may be gone, or not speak any more
            address = await asyncio.to_thread(self._lifecycle.address, launch)
            await instance.stop(address, reason=reason.value, grace_s=STOP_GRACE_S)

    async def _build_ahead(self, launch: Launch, outcome: Attestation) -> None:
        plan = await asyncio.to_thread(self._plans.again, launch)
        if plan is None or not outcome.devices:
            return
        bare = replace(plan, root=b"", ticket=b"", validator_private_key=b"")
        rtt_us = outcome.proof.round_trip_us
        built = await self._attestor.prebuild(bare, outcome.devices, rtt_us)
        if built is not None:
            self._prebuilt[launch.launch_id] = built

    async def _not_quiet(self, launch: Launch) -> None:
        """End a launch that had calls longer than calls can last: it was put off long enough."""
        if self._drains.overdue(launch.launch_id):
            await self._stop(launch, Reason.PROOF_LATE)
            detail = "it was never without calls, so it could not be challenged"
            await self._lifecycle.end(launch.launch_id, Reason.PROOF_LATE, detail)

    async def _due(self, under_way: Collection[Launch]) -> list[Launch]:
        """Return whom to challenge now, beside those that are being challenged."""
        active = await self._active()
        self._forget({launch.launch_id for launch in active})
        now_s = self._clock.now_s()
        chutes = {launch.chute_id for launch in under_way}
        due: list[Launch] = []
        for launch in active:
            if len(due) + len(under_way) >= AT_ONCE:
                break
            if now_s >= self._due_at(launch, now_s) and launch.chute_id not in chutes:
                chutes.add(launch.chute_id)
                due.append(launch)
        return due

    async def _active(self) -> list[Launch]:
        launches = await asyncio.to_thread(self._store.launches.open)
        return await self._without_jobs(
            [launch for launch in launches if launch.state is LaunchState.ACTIVE]
        )

    async def _without_jobs(self, launches: Sequence[Launch]) -> list[Launch]:
        """Leave out who runs a job: its work would make every answer late (ADR 0080)."""
        jobs = await asyncio.to_thread(self._store.jobs.claimed)
        return [launch for launch in launches if launch.launch_id not in jobs]

    def _due_at(self, launch: Launch, now_s: int) -> int:
        """Return when an instance is due; the first time after a part of the interval of its own.

        So instances that became active together are not challenged together.
        """
        first_s = (
            now_s
            + self._interval_s // 2
            + int(launch.launch_id[:4], 16) % (self._interval_s // 2 + 1)
        )
        return self._due_s.setdefault(launch.launch_id, first_s)

    def _again(self, launch: Launch, seconds: int) -> None:
        self._due_s[launch.launch_id] = self._clock.now_s() + seconds

    def _forget(self, alive: set[str]) -> None:
        for known in (self._due_s, self._late, self._prebuilt):
            for launch_id in known.keys() - alive:
                known.pop(launch_id, None)
        for launch_id in self._one.keys() - alive:
            if not self._one[launch_id].locked():
                del self._one[launch_id]
        self._drains.forget(alive)
