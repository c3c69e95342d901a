"""Runs attestations in processes of their own, so that nothing disturbs their clock.

Path: launches/lifecycle -> here -> sessions. Invariant: the event loop only waits; building
challenges (numpy) and timing legs happen elsewhere, and the helper processes never outlive the
validator, not even when it is killed.
"""

import asyncio
import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from loguru import logger

from chutes_core.validator.attest.challenges import prebuild
from chutes_core.validator.attest.group import run_group
from chutes_core.validator.attest.verdicts import refused
from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import Attestation, AttestPlan, Prebuilt

PROCESSES = 2
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ProcessAttestor:
    """Attests instances, at most ``processes`` at a time; others wait their turn."""

    def __init__(self, processes: int = PROCESSES) -> None:
        self._processes = processes
        self._pool: Executor = self._new_pool()

    async def attest(self, plan: AttestPlan) -> Attestation:
        """Challenge one instance's GPUs and return the outcome."""
        return (await self.attest_together((plan,)))[0]

    async def attest_together(self, plans: Sequence[AttestPlan]) -> tuple[Attestation, ...]:
        """Challenge several instances at the same instant; the outcomes in the plans' order."""
        loop = asyncio.get_running_loop()
        pool = self._pool
        try:
            return await loop.run_in_executor(pool, run_group, tuple(plans))
        except BrokenProcessPool as error:
            self._replace(pool, error)
            reason, detail = Reason.VALIDATOR_RESTARTED, "the attestation process died"
            return tuple(refused(plan, reason, detail) for plan in plans)

    async def prebuild(
        self, plan: AttestPlan, devices: tuple[str, ...], rtt_us: int
    ) -> Prebuilt | None:
        """Build an instance's next challenge ahead; None where that is not possible."""
        loop = asyncio.get_running_loop()
        pool = self._pool
        try:
            return await loop.run_in_executor(pool, prebuild, plan, devices, rtt_us)
        except BrokenProcessPool as error:
            self._replace(pool, error)
            return None

    def _replace(self, pool: Executor, error: BrokenProcessPool) -> None:
        logger.error("attestation process died", error=str(error))
        if self._pool is pool:
            self._pool = self._new_pool()

    def close(self) -> None:
        """Stop the helper processes without waiting for a session in flight."""
        pool = self._pool
        processes = list(getattr(pool, "_processes", {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()

    def _new_pool(self) -> Executor:
        return ProcessPoolExecutor(
            max_workers=self._processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_process,
        )


def _prepare_process() -> None:
    """Leave signals to the parent, and die with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
