"""The end of a run: its state, its charge and its record, in one durable transaction.

Path: service and conductor -> here -> store and money. Invariant: a run ends once; what it costs is
decided here alone. It costs the time that it ran, by the validator's own clock, whether it
completed or not; what ended for no fault of its user's is free, but only `FREE_LOSSES` times a day:
user code could end its own instance to go without paying.
"""

from dataclasses import replace

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.jobs import JobRun, JobState
from chutes_core.validator.jobs import money
from chutes_core.validator.store.database import Store

FREE_LOSSES = 3
DAY_US = 24 * 3600 * 1_000_000
OWN_FAULT = "no_space"  # the validator's own: always free


class Endings:
    """Ends runs, and forgets them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def end(self, job: JobRun, state: JobState, reason: str, detail: str = "") -> JobRun:
        """End a run from the state that it was read in.

        Raises:
            Conflict: ``job_moved``.
        """
        now_us = self._clock.now_us()
        ended_at_us = job.ended_at_us or now_us
        with self._store.transaction(durable=True):
            usage_us = 0 if reason == OWN_FAULT else self._usage_us(job, state, now_us)
            charge_rao = job.rate.charge_rao(usage_us)
            ended = self._store.jobs.advance(
                job.job_id,
                job.state,
                state,
                reason=reason,
                detail=detail[:4000],
                ended_at_us=ended_at_us,
                usage_us=usage_us,
                charge_rao=charge_rao,
            )
            money.settle(self._store, job, charge_rao, now_us // 1_000_000)
            if job.started_at_us:
                money.record(self._store, ended, state, usage_us)
        logger.bind(job=job.job_id, state=state.value, reason=reason, charge_rao=charge_rao).info(
            "Job ended"
        )
        return ended

    def forget(self, job: JobRun) -> bool:
        """Drop an ended run and the files that no other run has; False where it cannot go yet."""
        if not self._store.jobs.delete(job.job_id):
            return False
        for sha256 in {file.sha256 for file in job.files}:
            self.drop_file(sha256)
        return True

    def prune(self, kept_s: int) -> int:
        """Forget what ended longer ago, and files that no run has; return how many runs."""
        before_us = self._clock.now_us() - kept_s * 1_000_000
        return sum(self.forget(job) for job in self._store.jobs.ended_before(before_us))

    def resume(self) -> None:
        """Drop the bytes that a killed process had not recorded; once, before anything runs."""
        for sha256 in self._store.job_files.all():
            self.drop_file(sha256)

    def drop_file(self, sha256: str) -> None:
        """Drop a file's bytes unless a run has them."""
        with self._store.transaction():  # nobody records the same bytes meanwhile
            if not self._store.jobs.blob_in_use(sha256):
                self._store.job_files.delete(sha256)

    def seen_ending(self, job: JobRun, ran_us: int) -> JobRun:
        """Return a run with its end and its usage, as it is seen to have ended now.

        The validator's clock bounds what the instance says from both sides: after a restart of ours
        nobody pays for our absence, and no instance can say less than what we saw it run.
        """
        now_us = self._clock.now_us()
        most_us = max(0, now_us - job.started_at_us)
        least_us = max(0, job.seen_at_us - job.started_at_us)
        usage_us = min(max(ran_us, least_us), most_us)
        return replace(job, usage_us=usage_us, ended_at_us=job.started_at_us + usage_us)

    def _usage_us(self, job: JobRun, state: JobState, now_us: int) -> int:
        if not job.started_at_us:
            return 0
        if state is not JobState.FAILED:
            return job.usage_us or max(0, now_us - job.started_at_us)
        lost = self._store.jobs.lost_since(job.user_id, now_us - DAY_US)
        if lost < FREE_LOSSES:
            return 0
        return job.usage_us or max(0, job.seen_at_us - job.started_at_us)
