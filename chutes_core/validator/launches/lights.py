"""Light challenges of active instances: out of routing, drained, proven again, back into routing.

Path: validator/loops -> here -> attest -> lifecycle. The instance keeps its keys; a challenge is
built ahead for each. Several can be challenged at the same instant (`challenge`), so that one GPU
behind two of them is late. A wrong answer ends the launch; a late one is inconclusive and is tried
again, at most `FRESH_TRIES` times an hour, then it ends the launch too.

Invariant: an instance that is being challenged gets no call, and one in `_paused` always comes back
or ends, whatever goes wrong here.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError
from chutes_core.validator.domain.launches import Launch, LaunchState, Reason
from chutes_core.validator.domain.verdicts import Attestation, AttestPlan, Prebuilt
from chutes_core.validator.launches import instance
from chutes_core.validator.launches.admissions import FRESH_TRIES, HOUR_S
from chutes_core.validator.launches.lifecycle import Lifecycle
from chutes_core.validator.launches.pauses import Pauses
from chutes_core.validator.launches.plans import Plans
from chutes_core.validator.launches.ports import Attestor, Changed, InFlight
from chutes_core.validator.store.database import Store

DRAIN_S = 120.0
DRAIN_POLL_S = 0.1
RETRY_S = 60
STOP_GRACE_S = 5
Sleep = Callable[[float], Awaitable[None]]


class Lights:
    """Challenges instances again while they live.

    Args:
        interval_s: an instance is challenged so often; 0 never.
        in_flight: how many calls an instance has.
        sleep: a test's to replace.
    """

    def __init__(
        self,
        *,
        store: Store,
        attestor: Attestor,
        plans: Plans,
        lifecycle: Lifecycle,
        pauses: Pauses,
        in_flight: InFlight,
        changed: Changed,
        clock: Clock,
        interval_s: int,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._attestor = attestor
        self._plans = plans
        self._lifecycle = lifecycle
        self._pauses = pauses
        self._in_flight = in_flight
        self._changed = changed
        self._clock = clock
        self._interval_s = interval_s
        self._sleep = sleep
        self._due_s: dict[str, int] = {}
        self._late: dict[str, list[int]] = defaultdict(list)
        self._prebuilt: dict[str, Prebuilt] = {}
        self._one = asyncio.Lock()  # an instance takes one proof at a time

    async def run_once(self) -> int:
        """Challenge every instance that is due, one after another; return how many that was."""
        if not self._interval_s:
            return 0
        active = await self._active()
        self._forget({launch.launch_id for launch in active})
        now_s = self._clock.now_s()
        due = [launch for launch in active if now_s >= self._due_at(launch, now_s)]
        for launch in due:
            await self.challenge([launch])
        return len(due)

    async def challenge(self, launches: Sequence[Launch], *, least_us: int = 0) -> None:
        """Challenge active instances at the same instant and draw the consequences.

        Args:
            launches: active ones; each is out of routing meanwhile.
            least_us: the work takes an honest GPU so long at least.
        """
        async with self._one:
            await self._challenge(launches, least_us)

    async def _challenge(self, launches: Sequence[Launch], least_us: int) -> None:
        ids = [launch.launch_id for launch in launches]
        with self._pauses.holding(ids):
            await self._changed()
            quiet = await asyncio.gather(*(self._drained(launch_id) for launch_id in ids))
            ready = [launch for launch, done in zip(launches, quiet, strict=True) if done]
            outcomes = await self._attest(ready, least_us)
            for launch, outcome in outcomes:
                await self._conclude(launch, outcome)
        await self._changed()
        for launch in launches:
            if launch.launch_id not in {done.launch_id for done, _ in outcomes}:
                self._again(launch, RETRY_S)
        for launch, outcome in outcomes:
            if outcome.passed and not least_us:
                await self._build_ahead(launch, outcome)

    async def _attest(
        self, launches: Sequence[Launch], least_us: int
    ) -> list[tuple[Launch, Attestation]]:
        planned: list[tuple[Launch, AttestPlan]] = []
        for launch in launches:
            prebuilt = None if least_us else self._prebuilt.pop(launch.launch_id, None)
            plan = await asyncio.to_thread(
                self._plans.again, launch, prebuilt=prebuilt, least_us=least_us
            )
            if plan is not None:
                planned.append((launch, plan))
        if not planned:
            return []
        outcomes = await self._attestor.attest_together([plan for _, plan in planned])
        return [(launch, one) for (launch, _), one in zip(planned, outcomes, strict=True)]

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

    async def _drained(self, launch_id: str) -> bool:
        """Wait until an instance has no call in flight; False after `DRAIN_S`."""
        tries = int(DRAIN_S / DRAIN_POLL_S)
        for _ in range(tries):
            if not self._in_flight(launch_id):
                return True
            await self._sleep(DRAIN_POLL_S)
        logger.warning("instance did not drain for its challenge", launch=launch_id)
        return False

    async def _active(self) -> list[Launch]:
        launches = await asyncio.to_thread(self._store.launches.open)
        return [launch for launch in launches if launch.state is LaunchState.ACTIVE]

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
