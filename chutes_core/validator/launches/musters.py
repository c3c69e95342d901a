"""Idle GPUs in a round: they are called up, and their node attestations start with the others.

An idle GPU has no process that could be asked, so the wanted list takes it from the miner's
admitted ones while it is called; the miner answers with a launch of the system chute on all of its
idle GPUs, as always, and that launch waits here until the round begins.

Path: rounds calls and concludes; lifecycle attests through here; admissions shows who is called.
Invariant: whoever waits here is attested, in the round or without it, whatever becomes of the
round.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chutes_core.validator.domain.verdicts import Attestation, AttestPlan, Prebuilt
from chutes_core.validator.launches.ports import Attestor, Passed

Called = Mapping[str, frozenset[str]]
"""Hotkey -> UUIDs of its idle GPUs."""


@dataclass(frozen=True)
class _Arrival:
    plan: AttestPlan
    outcome: "asyncio.Future[Attestation | None]"


class Muster:
    """An `Attestor` that keeps called GPUs waiting for their round, and nobody else."""

    def __init__(self, attestor: Attestor) -> None:
        self._attestor = attestor
        self._called: Called = {}
        self._arrived: dict[str, _Arrival] = {}
        self._came = asyncio.Event()

    def called(self, hotkey: str) -> frozenset[str]:
        """Return the idle GPUs that a miner is to bring now."""
        return self._called.get(hotkey, frozenset())

    async def attest(self, plan: AttestPlan) -> Attestation:
        """Attest at once, or in the round that these GPUs are called to."""
        if plan.scope != "node" or not _uuids(plan) & self.called(plan.miner_hotkey):
            return await self._attestor.attest(plan)
        arrival = _Arrival(plan, asyncio.get_running_loop().create_future())
        self._arrived[plan.launch_id] = arrival
        self._came.set()
        try:
            outcome = await arrival.outcome
        finally:
            self._arrived.pop(plan.launch_id, None)
        return outcome if outcome is not None else await self._attestor.attest(plan)

    async def attest_together(
        self, plans: Sequence[AttestPlan], *, passed: Passed | None = None
    ) -> tuple[Attestation, ...]:
        """Challenge several at the same instant."""
        return await self._attestor.attest_together(plans, passed=passed)

    async def prebuild(
        self, plan: AttestPlan, devices: tuple[str, ...], rtt_us: int
    ) -> Prebuilt | None:
        """Build a challenge ahead."""
        return await self._attestor.prebuild(plan, devices, rtt_us)

    async def assemble(self, called: Called, timeout_s: float) -> tuple[AttestPlan, ...]:
        """Call GPUs up; return the plans of those that came, when all have or the time is over."""
        self._called = dict(called)
        with contextlib.suppress(asyncio.TimeoutError):  # then without those that have not come
            await asyncio.wait_for(self._all_here(), timeout_s)
        return tuple(arrival.plan for arrival in self._arrived.values())

    def missing(self) -> Called:
        """Return the called GPUs of which no launch has come."""
        here = {uuid for arrival in self._arrived.values() for uuid in _uuids(arrival.plan)}
        left = {hotkey: uuids - here for hotkey, uuids in self._called.items()}
        return {hotkey: uuids for hotkey, uuids in left.items() if uuids}

    def conclude(self, plans: Sequence[AttestPlan], outcomes: Sequence[Attestation]) -> None:
        """Hand the outcomes to the launches that wait for them."""
        for plan, outcome in zip(plans, outcomes, strict=True):
            arrival = self._arrived.get(plan.launch_id)
            if arrival is not None and not arrival.outcome.done():
                arrival.outcome.set_result(outcome)

    def dismiss(self) -> None:
        """End the round: nobody is called any more, and who still waits is attested alone."""
        self._called = {}
        for arrival in self._arrived.values():
            if not arrival.outcome.done():
                arrival.outcome.set_result(None)

    async def _all_here(self) -> None:
        while self.missing():
            self._came.clear()
            await self._came.wait()


def _uuids(plan: AttestPlan) -> frozenset[str]:
    return frozenset(gpu.uuid for gpu in plan.gpus)
