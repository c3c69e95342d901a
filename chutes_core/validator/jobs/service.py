"""Runs of jobs as their users see them: asked for, listed, cancelled, deleted, their files read.

Path: api/routes/jobs -> here -> store; conductor carries a run on. Invariant: a run belongs to the
account that asked for it and is shown to nobody else; its price is held in the transaction that
keeps it; cancelling twice is cancelling once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import (
    Conflict,
    Exhausted,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
)
from chutes_core.base.ids import new_id
from chutes_core.validator.accounts.principal import Principal
from chutes_core.validator.billing.rates import Rates
from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.jobs import JobRun, JobSpec, JobState, StoredFile
from chutes_core.validator.domain.spending import Spending
from chutes_core.validator.jobs import money
from chutes_core.validator.jobs.ending import Endings
from chutes_core.validator.store.database import Store
from chutes_core.wire.job import MAX_ARGUMENTS_BYTES

LONGEST_JOB_S = 86_400
SHORTEST_JOB_S = 30
MAX_OPEN_JOBS = 20
MAX_KEPT_JOBS = 1_000
MAX_STORED_BYTES = 10 * 1024**3
_TRIES = 5


@dataclass(frozen=True)
class JobAsked:
    """What a user wants to run; ``limit_s`` None takes the job's own time limit."""

    name: str
    arguments: Mapping[str, Any]
    limit_s: int | None = None


class Jobs:
    """All that users ask about runs.

    Args:
        store: where they are kept.
        clock: for their times.
        rates: what they cost.
        spending: holds the price against the account's running calls.
        endings: ends a run that has no instance yet.
    """

    def __init__(
        self, store: Store, clock: Clock, rates: Rates, *, spending: Spending, endings: Endings
    ) -> None:
        self._store = store
        self._clock = clock
        self._rates = rates
        self._spending = spending
        self._endings = endings

    def start(self, caller: Principal, chute: Chute, asked: JobAsked) -> JobRun:
        """Ask for a run of a chute's job; its highest price is held at once.

        Raises:
            NotFound: ``no_such_job``. Invalid: ``bad_job_data`` or ``bad_timeout``.
            TooLarge: ``job_data_too_large``.
            Exhausted: ``too_many_jobs`` or ``job_storage_full``.
            PaymentRequired: ``insufficient_balance`` or ``key_budget_spent``.
        """
        spec = chute.job(asked.name)
        if spec is None:
            names = ", ".join(job.name for job in chute.jobs) or "none"
            raise NotFound(
                "no_such_job",
                f"{chute.name} has no job {asked.name[:80]!r}",
                hint=f"there are: {names}",
            )
        job = self._new(caller, chute, spec, asked)
        with self._spending() as spend, self._store.transaction(durable=True):
            if self._store.notices.due(chute.user_id, job.created_at_s):
                raise Forbidden(
                    "not_developer",
                    "the chute's owner is no developer any more",
                    hint="deploy a copy under your own name",
                )
            self._check_room(caller.account.user_id)
            money.hold(self._store, spend, caller.account, caller.key, job)
            self._store.jobs.insert(job)
        logger.bind(job=job.job_id, chute=chute.slug, limit_s=job.limit_s).info("Job asked for")
        return job

    def list(
        self,
        caller: Principal,
        *,
        chute_id: str | None = None,
        state: JobState | None = None,
        offset: int = 0,
        limit: int = MAX_KEPT_JOBS,
    ) -> tuple[int, tuple[JobRun, ...]]:
        """Return how many runs the caller may see, and some of them, newest first.

        Args:
            caller: whose they are; with a key those of chutes that it may call.
            chute_id: of this chute alone.
            state: in this state alone.
            offset: how many of the newest are left out.
            limit: how many are returned at most.
        """
        user_id = caller.account.user_id
        chute_ids = [
            one
            for one in self._store.jobs.chutes_of(user_id)
            if chute_id in (None, one) and caller.may("chutes", "invoke", one)
        ]
        return self._store.jobs.page(user_id, chute_ids, state=state, offset=offset, limit=limit)

    def get(self, caller: Principal, job_id: str) -> JobRun:
        """Return one of the caller's runs.

        Raises:
            NotFound: ``no_such_run``.
        """
        job = self._store.jobs.get(job_id)
        if job is None or job.user_id != caller.account.user_id:
            raise NotFound(
                "no_such_run", "you have no such job run", hint="chutes jobs list shows yours"
            )
        return job

    def cancel(self, caller: Principal, job_id: str) -> JobRun:
        """Cancel a run; one that has an instance ends within moments, an ended one stays as it is.

        Raises:
            NotFound: ``no_such_run``.
        """
        for _ in range(_TRIES):
            job = self.get(caller, job_id)
            if not job.open or job.cancel_asked:
                return job
            try:
                if job.state is JobState.PENDING:
                    return self._endings.end(job, JobState.CANCELLED, "cancelled_by_user")
                return self._store.jobs.update(job_id, job.state, cancel_asked=True)
            except Conflict:  # it moved between our read and our write: look again
                continue
        return self.get(caller, job_id)

    def delete(self, caller: Principal, job_id: str) -> None:
        """Forget an ended run and its files.

        Raises:
            NotFound: ``no_such_run``. Conflict: ``job_open``.
        """
        job = self.get(caller, job_id)
        if job.open or not self._endings.forget(job):
            raise Conflict(
                "job_open",
                f"the job is {job.state.value}, or its instance is being taken away",
                hint="cancel it first (chutes jobs cancel), or try again in a moment",
            )

    def file(self, caller: Principal, job_id: str, name: str) -> tuple[StoredFile, Path]:
        """Return a file of one of the caller's runs and where its bytes lie.

        Raises:
            NotFound: ``no_such_run`` or ``no_such_job_file``.
        """
        job = self.get(caller, job_id)
        for file in job.files:
            if file.name == name:
                try:
                    return file, self._store.job_files.path(file.sha256)
                except NotFound as gone:  # the run is being deleted
                    raise no_file(name) from gone
        raise no_file(name)

    def _new(self, caller: Principal, chute: Chute, spec: JobSpec, asked: JobAsked) -> JobRun:
        limit_s = self._limit_s(spec, asked.limit_s)
        return JobRun(
            job_id=new_id(),
            user_id=caller.account.user_id,
            key_id="" if caller.key is None else caller.key.key_id,
            chute_id=chute.chute_id,
            name=spec.name,
            arguments=_arguments(asked.arguments),
            limit_s=limit_s,
            upload=spec.upload,
            rate=self._rates.for_seconds(chute.selector, limit_s),
            created_at_s=self._clock.now_s(),
            ports=spec.ports,
        )

    def _limit_s(self, spec: JobSpec, asked_s: int | None) -> int:
        longest_s = spec.timeout_s or LONGEST_JOB_S
        if asked_s is None:
            return longest_s
        if not SHORTEST_JOB_S <= asked_s <= longest_s:
            raise Invalid(
                "bad_timeout",
                f"the time limit of {spec.name} is {SHORTEST_JOB_S} to {longest_s} s",
                hint="leave it out for the job's own",
            )
        return asked_s

    def _check_room(self, user_id: str) -> None:
        rows = self._store.jobs
        if rows.count_open(user_id) >= MAX_OPEN_JOBS:
            raise Exhausted(
                "too_many_jobs",
                f"{MAX_OPEN_JOBS} of your jobs have not ended",
                hint="wait for one, or cancel one: chutes jobs list",
                retry_after_s=60,
            )
        full = rows.count_of(user_id) >= MAX_KEPT_JOBS
        if full or rows.stored_bytes(user_id) >= MAX_STORED_BYTES:
            raise Exhausted(
                "job_storage_full",
                f"{MAX_KEPT_JOBS} runs or {MAX_STORED_BYTES} bytes of files are kept for you",
                hint="fetch and delete what you have: chutes jobs delete",
                retry_after_s=60,
            )


def no_file(name: str) -> NotFound:
    """Return what is said of a file that is not there, or not any more."""
    return NotFound(
        "no_such_job_file",
        f"the job has left no file {name[:200]!r}",
        hint="chutes jobs get JOB_ID lists its files; they are there once it is complete",
    )


def _arguments(given: Mapping[str, Any]) -> str:
    if reserved := sorted(given.keys() & {"self", "output_dir"}):
        raise Invalid(
            "bad_job_data",
            f"{reserved[0]} is not an argument of yours",
            hint="the job gets it when it runs",
        )
    try:
        text = json.dumps(given, allow_nan=False)
        json.dumps(given, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # NaN, half a character, too deep
        raise Invalid(
            "bad_job_data", "the arguments are no plain JSON", hint="numbers, texts, lists, objects"
        ) from error
    if len(text) > MAX_ARGUMENTS_BYTES:
        raise TooLarge(
            "job_data_too_large",
            f"a job's arguments are over {MAX_ARGUMENTS_BYTES} bytes",
            hint="let the job fetch its data, or put it into the image",
        )
    return text
