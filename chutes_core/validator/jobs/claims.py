"""Which instance a waiting run gets, and how long it waits for one.

Path: conductor -> here -> store. A waiting run makes its chute want one instance more
(launches/wanted); an active one that the chute's callers do not need becomes the run's alone: it is
in no snapshot from then on. Invariant: an instance is given to one run, once; a run whose chute is
gone, or that waited too long, ends and costs nothing.
"""

from collections.abc import Callable, Iterable

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.jobs import JobRun, JobState
from chutes_core.validator.domain.launches import Launch, LaunchState
from chutes_core.validator.jobs.ending import Endings
from chutes_core.validator.launches.wanted import Wanted, loads_of
from chutes_core.validator.store.database import Store

MAX_WAIT_S = 3_600


class Claims:
    """Looks through waiting runs.

    Args:
        wanted: says how many instances a chute's callers need.
        in_flight: how many calls an instance has.
        wait_s: a run waits so long for an instance.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        wanted: Wanted,
        in_flight: Callable[[str], int],
        endings: Endings,
        wait_s: int = MAX_WAIT_S,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wanted = wanted
        self._in_flight = in_flight
        self._endings = endings
        self._wait_s = wait_s

    def sweep(self) -> int:
        """Place or expire waiting runs, oldest first; return how many moved."""
        waiting = [job for job in self._store.jobs.open() if job.state is JobState.PENDING]
        without: set[str] = set()  # chutes that have no instance to spare in this round
        return sum(self._look(job, without) for job in waiting)

    def _look(self, job: JobRun, without: set[str]) -> bool:
        try:
            if reason := self._hopeless(job):
                self._endings.end(job, JobState.FAILED, reason)
                return True
            if job.chute_id in without:
                return False
            found = self._claim(job)
        except Conflict:  # it was cancelled at this moment
            return False
        if not found:
            without.add(job.chute_id)
        return found

    def _hopeless(self, job: JobRun) -> str:
        chute = self._store.chutes.get(job.chute_id)
        now_s = self._clock.now_s()
        if chute is None:
            return "chute_deleted"
        if chute.job(job.name) is None:
            return "job_undeclared"
        if self._store.notices.due(chute.user_id, now_s):
            return "not_developer"
        return "no_instance" if now_s - job.created_at_s >= self._wait_s else ""

    def _claim(self, job: JobRun) -> bool:
        with self._store.transaction():
            chute = self._store.chutes.get(job.chute_id)
            if chute is None:
                return False
            found = self._spare(chute)
            if found is None:
                return False
            self._store.jobs.advance(
                job.job_id,
                JobState.PENDING,
                JobState.STARTING,
                launch_id=found.launch_id,
                version=found.version,
                claimed_at_us=self._clock.now_us(),
            )
        logger.info("job got its instance", job=job.job_id, launch=found.launch_id)
        return True

    def _spare(self, chute: Chute) -> Launch | None:
        """Return an active instance that the chute's callers do not need, the youngest, or None."""
        claimed = self._store.jobs.claimed()
        launches = [one for one in self._store.launches.open() if one.launch_id not in claimed]
        load = loads_of(launches).get((chute.chute_id, chute.version))
        if load is None:
            return None
        needed = self._wanted.for_callers(chute, load, self._clock.now_s())
        if load.active <= needed:
            return None
        idle = [one for one in _active(chute, launches) if not self._in_flight(one.launch_id)]
        return idle[-1] if idle else None


def _active(chute: Chute, launches: Iterable[Launch]) -> list[Launch]:
    return [
        one
        for one in launches
        if (one.chute_id, one.version) == (chute.chute_id, chute.version)
        and one.state is LaunchState.ACTIVE
    ]
