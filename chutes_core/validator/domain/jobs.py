"""Jobs: what a chute declares, and the runs that users ask for.

`pending -> starting -> running -> saving -> complete`, and from every open state to an end that
says why: `error` (the job's own), `timeout`, `cancelled`, `failed` (not its fault). Invariant: a
run that has an instance is `starting`, `running` or `saving`; that instance is its alone and ends
with it; an ended run never changes again.
"""

from dataclasses import dataclass
from enum import Enum

from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.money import Rate


class JobState(str, Enum):
    """States of a run, in order; the last five are ends."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    SAVING = "saving"
    COMPLETE = "complete"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    FAILED = "failed"


WITH_INSTANCE = (JobState.STARTING, JobState.RUNNING, JobState.SAVING)
OPEN_JOBS = (JobState.PENDING, *WITH_INSTANCE)
ENDS = (
    JobState.COMPLETE,
    JobState.ERROR,
    JobState.TIMEOUT,
    JobState.CANCELLED,
    JobState.FAILED,
)

_NEXT: dict[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.STARTING, JobState.CANCELLED, JobState.FAILED}),
    JobState.STARTING: frozenset({JobState.RUNNING, *ENDS}),
    JobState.RUNNING: frozenset({JobState.SAVING, *ENDS}),
    JobState.SAVING: frozenset(ENDS),
}

JOB_REASONS: dict[str, str] = {
    "": "",
    "job_failed": "its code raised an error; see the detail",
    "job_timeout": "it was stopped at its time limit",
    "job_cancelled": "it ended itself",
    "cancelled_by_user": "it was cancelled",
    "bad_job_result": "what it returned is no JSON",
    "result_too_large": "what it returned is too large; write it to a file of output_dir",
    "too_many_files": "it left too many files; pack them into one",
    "bad_file_name": "it left a file whose name cannot be kept",
    "files_unreadable": "its files could not be read",
    "files_too_large": "its files are larger than what is kept; upload less",
    "no_instance": "no miner brought an instance in time; nothing was charged",
    "chute_deleted": "its chute was deleted",
    "job_undeclared": "the chute's present version has no such job",
    "not_developer": "the chute's owner is no developer any more",
    "instance_lost": "its instance ended before it did; start it again",
    "instance_refused": "the instance could not run it; build the image anew",
    "files_lost": "it ended, but its instance was lost before its files were fetched",
    "no_space": "the validator has no room for its files",
}
"""Why a run did not complete, with a sentence for its user."""


@dataclass(frozen=True)
class JobPort:
    """A port that a job listens on."""

    name: str
    port: int
    proto: str


@dataclass(frozen=True)
class JobSpec:
    """A job as a chute declares it."""

    name: str
    timeout_s: int | None = None
    upload: bool = True
    ports: tuple[JobPort, ...] = ()


@dataclass(frozen=True)
class StoredFile:
    """A file that a run has left, as it is kept."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class JobRun:
    """One run. ``user_id`` asked for it and pays; ``launch_id`` is "" until it has an instance.

    ``seen_at_us`` is when the validator last saw it run, ``usage_us`` what it is charged for once
    it has ended; ``outcome`` and what follows are what the instance said of its end.
    """

    job_id: str
    user_id: str
    key_id: str
    chute_id: str
    name: str
    arguments: str
    limit_s: int
    upload: bool
    rate: Rate
    created_at_s: int
    ports: tuple[JobPort, ...] = ()
    state: JobState = JobState.PENDING
    reason: str = ""
    detail: str = ""
    version: str = ""
    launch_id: str = ""
    cancel_asked: bool = False
    claimed_at_us: int = 0
    started_at_us: int = 0
    seen_at_us: int = 0
    ended_at_us: int = 0
    usage_us: int = 0
    charge_rao: int = 0
    outcome: str = ""
    result: str = ""
    announced: tuple[tuple[str, int], ...] = ()
    files: tuple[StoredFile, ...] = ()

    @property
    def open(self) -> bool:
        """Tell whether it has not ended."""
        return self.state in OPEN_JOBS

    @property
    def held_rao(self) -> int:
        """Return what is set aside for it while it is open."""
        return self.rate.hold_rao if self.open else 0


def check_step(current: JobState, wanted: JobState) -> None:
    """Check that the table has this step.

    Raises:
        Conflict: ``bad_transition``.
    """
    if wanted not in _NEXT.get(current, frozenset()):
        raise Conflict("bad_transition", f"a job cannot go from {current.value} to {wanted.value}")
