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
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from loguru import logger

from chutes_core.validator.attest.sessions import run_session
from chutes_core.validator.attest.verdicts import refused
from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import Attestation, AttestPlan

PROCESSES = 2
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ProcessAttestor:
    """Attests instances, at most ``processes`` at a time; others wait their turn."""

    def __init__(self, processes: int = PROCESSES) -> None:
        self._processes = processes
        self._pool: Executor = self._new_pool()

    async def attest(self, plan: AttestPlan) -> Attestation:
        """Challenge one instance's GPUs and return the outcome."""
        loop = asyncio.get_running_loop()
        pool = self._pool
        try:
            return await loop.run_in_executor(pool, run_session, plan)
        except BrokenProcessPool as error:
            logger.error("attestation process died", launch=plan.launch_id, error=str(error))
            if self._pool is pool:
                self._pool = self._new_pool()
            return refused(plan, Reason.VALIDATOR_RESTARTED, "the attestation process died")

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
