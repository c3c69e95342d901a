"""Carries runs on: an instance of their own, the order, watching, their files, the end.

Path: validator/loops -> here -> instance (sealed, through the relay) and store. One task per run is
the only one that moves it on while it has an instance. Invariant: whatever fails, the run ends: at
its limit by our own clock too, and with its instance; and its instance ends with it, so that
nothing that a job has started outlives it. After a restart each run goes on from the store's state.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError, Conflict, NotFound, TimedOut, TooLarge, Unavailable
from chutes_core.validator.domain.jobs import JobRun, JobState, StoredFile
from chutes_core.validator.domain.launches import Launch, LaunchState, Reason
from chutes_core.validator.jobs import files, reports
from chutes_core.validator.jobs.claims import Claims
from chutes_core.validator.jobs.ending import Endings
from chutes_core.validator.launches import instance
from chutes_core.validator.launches.instance import InstanceAddress, InstanceRefused
from chutes_core.validator.store.database import Store
from chutes_core.wire.job import JobOrder, JobReport

POLL_S = 1.0
SEEN_US = 5_000_000  # a running job's time is kept so often
START_US = 120_000_000  # an instance that does not take its order is left
SAVE_US = 3_600_000_000  # files that have not come are given up
FETCHES = 4  # files fetched at once, on threads of their own
OVER_LIMIT_S = 20  # an instance has this long over the limit to say that the job has ended
MAX_FILES_BYTES = 1024**3
_OF_OWNER = {
    Reason.CHUTE_DELETED: "chute_deleted",
    Reason.NOT_DEVELOPER: "not_developer",
}
_ENDS = {
    "complete": JobState.COMPLETE,
    "error": JobState.ERROR,
    "timeout": JobState.TIMEOUT,
    "cancelled": JobState.CANCELLED,
}
AddressOf = Callable[[Launch], InstanceAddress]
Drain = Callable[[Launch, Reason], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]


class _Over(Exception):
    """A run ends as it says here."""

    def __init__(self, job: JobRun, state: JobState, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.job, self.state, self.reason, self.detail = job, state, reason, detail


class Conductor:
    """Gives waiting runs instances and carries each to its end.

    Args:
        address_of: how a launch's instance is reached.
        drain: takes an instance away.
        changed: tells the snapshot.
        left: told of each run that does not run any more.
        max_files_bytes: what is kept of one run's files.
        sleep: a test's to replace.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        claims: Claims,
        endings: Endings,
        address_of: AddressOf,
        drain: Drain,
        changed: Callable[[], Awaitable[None]],
        left: Callable[[str], None] = lambda _: None,
        max_files_bytes: int = MAX_FILES_BYTES,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._claims = claims
        self._endings = endings
        self._address_of = address_of
        self._drain = drain
        self._changed = changed
        self._left = left
        self._max_files_bytes = max_files_bytes
        self._sleep = sleep
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stop = threading.Event()
        self._fetching = ThreadPoolExecutor(FETCHES, thread_name_prefix="job-files")

    async def run_once(self) -> None:
        """Expire and place what waits, and see to it that every other open run is carried on."""
        if await asyncio.to_thread(self._claims.sweep):
            await self._changed()
        for job in await asyncio.to_thread(self._to_carry):
            if job.job_id not in self._tasks:
                self._begin(job)

    async def close(self) -> None:
        """Stop carrying; the runs themselves go on, and the next process takes them up."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._stop.set()
        await asyncio.to_thread(self._fetching.shutdown, cancel_futures=True)

    def _to_carry(self) -> list[JobRun]:
        """Return the runs that have an instance, and those that ended but for letting it go."""
        rows = self._store.jobs
        open_ones = [job for job in rows.open() if job.state is not JobState.PENDING]
        return [*open_ones, *rows.left_over()]

    def _begin(self, job: JobRun) -> None:
        task = asyncio.create_task(self._carry(job.job_id), name=f"job {job.job_id}")
        self._tasks[job.job_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.job_id, None))

    async def _carry(self, job_id: str) -> None:
        try:
            job = await asyncio.to_thread(self._get, job_id)
            try:
                while job.open:
                    job = await self._step(job)
                    if job.state is JobState.SAVING:
                        self._left(job_id)
            except _Over as over:
                self._left(job_id)
                job = await asyncio.to_thread(
                    self._endings.end, over.job, over.state, over.reason, over.detail
                )
            await self._let_go(job)
        except Conflict as conflict:  # another hand moved it: the next round looks anew
            logger.warning("job left", job=job_id, code=conflict.code)
        except Exception as error:  # noqa: BLE001 # the task's edge: the next round tries again
            logger.opt(exception=error).error("job failed unexpectedly", job=job_id)

    async def _step(self, job: JobRun) -> JobRun:
        """Move a run on by one step and return it as it stands; `_Over` where it ends."""
        launch = await self._launch(job)
        if job.cancel_asked and job.state is not JobState.SAVING:
            raise _Over(job, JobState.CANCELLED, "cancelled_by_user")
        try:
            address = await asyncio.to_thread(self._address_of, launch)
            if job.state is JobState.STARTING:
                return await self._start(job, address)
            if job.state is JobState.RUNNING:
                return await self._watch(job, address)
            await self._save(job, address)
        except InstanceRefused as refusal:
            detail = f"{refusal.message} [{refusal.code}]"
            raise _Over(job, JobState.FAILED, "instance_refused", detail) from refusal
        except ChutesError as error:
            logger.info("job's instance not reached", job=job.job_id, code=error.code)
            self._check_clock(job, seen_us=max(1, job.seen_at_us - job.started_at_us))
        await self._sleep(POLL_S)
        return await asyncio.to_thread(self._get, job.job_id)

    async def _start(self, job: JobRun, address: InstanceAddress) -> JobRun:
        order = JobOrder(
            job_id=job.job_id,
            name=job.name,
            arguments=job.arguments,
            limit_s=job.limit_s,
            upload=job.upload,
        )
        await instance.run_job(address, order)
        now_us = self._clock.now_us()
        logger.info("job runs", job=job.job_id, launch=job.launch_id)
        return await asyncio.to_thread(
            self._store.jobs.advance,
            job.job_id,
            JobState.STARTING,
            JobState.RUNNING,
            started_at_us=now_us,
            seen_at_us=now_us,
        )

    async def _watch(self, job: JobRun, address: InstanceAddress) -> JobRun:
        report = await instance.ask_job(address, job.job_id)
        if report.status is not None:
            return await self._ended(job, report)
        self._check_clock(job)
        now_us = self._clock.now_us()
        if now_us - job.seen_at_us >= SEEN_US:
            await asyncio.to_thread(
                self._store.jobs.update, job.job_id, JobState.RUNNING, seen_at_us=now_us
            )
        await self._sleep(POLL_S)
        return await asyncio.to_thread(self._get, job.job_id)

    async def _ended(self, job: JobRun, report: JobReport) -> JobRun:
        assert report.status is not None
        done = self._endings.seen_ending(job, report.ran_ms * 1000)
        if report.status != "complete":
            raise _Over(done, _ENDS[report.status], report.reason, report.detail)
        if reason := reports.objection(report):
            raise _Over(done, JobState.ERROR, reason)
        announced = tuple((file.name, file.size_bytes) for file in report.files)
        return await asyncio.to_thread(
            self._store.jobs.advance,
            job.job_id,
            JobState.RUNNING,
            JobState.SAVING,
            outcome=report.status,
            result=report.result,
            announced=announced if job.upload else (),
            usage_us=done.usage_us,
            ended_at_us=done.ended_at_us,
        )

    async def _save(self, job: JobRun, address: InstanceAddress) -> None:
        """Fetch what is not fetched yet; then the run is complete."""
        size_bytes = sum(size for _, size in job.announced)
        kept = {file.name for file in job.files}
        until_us = self._clock.now_us() + SAVE_US
        try:
            files.check_allowance(size_bytes, self._max_files_bytes)
            for name, _ in job.announced:
                if self._clock.now_us() >= until_us:  # they trickle
                    raise TimedOut("frame_timeout", "the files did not come in time")
                if name not in kept:
                    job = await asyncio.get_running_loop().run_in_executor(
                        self._fetching, self._fetch, job, address, name
                    )
        except TooLarge as error:
            raise _Over(job, JobState.ERROR, "files_too_large", error.message) from error
        except files.FileGone as error:
            raise _Over(job, JobState.ERROR, "files_unreadable", error.message) from error
        except Unavailable as error:
            if error.code in ("no_space", "store_unavailable"):
                raise _Over(job, JobState.FAILED, "no_space") from error
            raise
        raise _Over(job, JobState.COMPLETE, "")

    def _fetch(self, job: JobRun, address: InstanceAddress, name: str) -> JobRun:
        blobs = self._store.job_files
        left_bytes = self._max_files_bytes - sum(file.size_bytes for file in job.files)
        files.check_room(blobs.directory, left_bytes)
        while True:
            file = files.fetch(
                address, job.job_id, name, blobs, limit_bytes=left_bytes, stop=self._stop
            )
            try:
                return self._keep(job, (*job.files, file))
            except NotFound:  # another run with the same bytes was deleted at this moment
                continue

    def _keep(self, job: JobRun, kept: tuple[StoredFile, ...]) -> JobRun:
        with self._store.transaction():
            for file in kept:
                self._store.job_files.path(file.sha256)
            return self._store.jobs.update(job.job_id, JobState.SAVING, files=kept)

    def _check_clock(self, job: JobRun, *, seen_us: int | None = None) -> None:
        """End a run whose instance does not take it, end it, or give its files.

        Of an instance that says nothing, only what it was seen to run (``seen_us``) is charged.
        """
        now_us = self._clock.now_us()
        if job.state is JobState.STARTING and now_us - job.claimed_at_us >= START_US:
            detail = "the instance did not take the order"
            raise _Over(job, JobState.FAILED, "instance_refused", detail)
        over_us = job.started_at_us + (job.limit_s + OVER_LIMIT_S) * 1_000_000
        if job.state is JobState.RUNNING and now_us >= over_us:
            usage_us = job.limit_s * 1_000_000
            usage_us = usage_us if seen_us is None else min(seen_us, usage_us)
            raise _Over(replace(job, usage_us=usage_us), JobState.TIMEOUT, "job_timeout")
        if job.state is JobState.SAVING and now_us - job.ended_at_us >= SAVE_US:
            raise _Over(job, JobState.FAILED, "files_lost", "they did not come in time")

    async def _launch(self, job: JobRun) -> Launch:
        launch = await asyncio.to_thread(self._store.launches.get, job.launch_id)
        if launch is not None and launch.state is LaunchState.ACTIVE:
            return launch
        if launch is not None and launch.reason in _OF_OWNER:
            raise _Over(job, JobState.CANCELLED, _OF_OWNER[launch.reason])
        lost = "files_lost" if job.state is JobState.SAVING else "instance_lost"
        detail = "" if launch is None else f"{launch.reason.value}: {launch.detail}".strip(": ")
        raise _Over(job, JobState.FAILED, lost, detail)

    async def _let_go(self, job: JobRun) -> None:
        """Take the instance of an ended run away."""
        launch = await asyncio.to_thread(self._store.launches.get, job.launch_id)
        if launch is not None and launch.state is LaunchState.ACTIVE:
            await self._drain(launch, Reason.JOB_ENDED)
        await self._changed()

    def _get(self, job_id: str) -> JobRun:
        job = self._store.jobs.get(job_id)
        if job is None:
            raise Conflict("job_moved", "the job was deleted")
        return job
