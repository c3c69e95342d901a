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
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from loguru import logger

from chutes_core.validator.attest.challenges import prebuild
from chutes_core.validator.attest.group import Passed, run_group
from chutes_core.validator.attest.verdicts import refused
from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import Attestation, AttestPlan, Prebuilt

PROCESSES = 2
_PLACE_BYTES = 2
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ProcessAttestor:
    """Attests instances, at most ``processes`` at a time; others wait their turn."""

    def __init__(self, processes: int = PROCESSES) -> None:
        self._processes = processes
        self._pool: Executor = self._new_pool()

    async def attest(self, plan: AttestPlan) -> Attestation:
        """Challenge one instance's GPUs and return the outcome."""
        return (await self.attest_together((plan,)))[0]

    async def attest_together(
        self, plans: Sequence[AttestPlan], *, passed: Passed | None = None
    ) -> tuple[Attestation, ...]:
        """Challenge several instances at the same instant; the outcomes in the plans' order.

        Args:
            plans: what to attest.
            passed: told the place of each plan that has passed, while others may go on.
        """
        loop = asyncio.get_running_loop()
        pool = self._pool
        try:
            if passed is None or len(plans) < 2:
                return await loop.run_in_executor(pool, run_group, tuple(plans))
            with _heard(loop, passed) as voice:
                return await loop.run_in_executor(pool, _run_and_tell, tuple(plans), voice)
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


@contextmanager
def _heard(loop: asyncio.AbstractEventLoop, passed: Passed) -> Iterator[Connection]:
    """Give a helper process a voice; what it says is heard on the loop until the block ends."""
    ear, voice = multiprocessing.Pipe(duplex=False)

    def hear() -> None:
        while ear.poll():
            passed(int.from_bytes(ear.recv_bytes(_PLACE_BYTES), "big"))

    loop.add_reader(ear.fileno(), hear)
    try:
        yield voice
    finally:
        loop.remove_reader(ear.fileno())
        ear.close()
        voice.close()


def _run_and_tell(plans: tuple[AttestPlan, ...], voice: Connection) -> tuple[Attestation, ...]:
    """Run a group in a helper process; say at once which of it have passed."""
    one_at_a_time = threading.Lock()

    def tell(place: int) -> None:
        with one_at_a_time, suppress(OSError):  # nobody listens any more: the outcome says it too
            voice.send_bytes(place.to_bytes(_PLACE_BYTES, "big"))

    try:
        return run_group(plans, passed=tell)
    finally:
        voice.close()


def _prepare_process() -> None:
    """Leave signals to the parent, and die with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
