"""Rows of job runs. Invariant: a run changes state by compare-and-set; an ended one never again.

Whatever returns several runs returns them without arguments, result and announced files.
"""

import json
import sqlite3
from collections.abc import Collection
from dataclasses import asdict

from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.jobs import (
    OPEN_JOBS,
    JobPort,
    JobRun,
    JobSpec,
    JobState,
    StoredFile,
    check_step,
)
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.store.connection import Connection, Value

Change = Value | JobState | bool | tuple[StoredFile, ...] | tuple[tuple[str, int], ...]
_COLUMNS = (
    "job_id user_id key_id chute_id name limit_s upload ports rate_id rao_per_hour hold_rao"
    " created_at_s state reason detail version launch_id cancel_asked claimed_at_us started_at_us"
    " seen_at_us ended_at_us usage_us charge_rao outcome files"
)
_LIGHT = ", ".join((*_COLUMNS.split(), "'' AS arguments", "'' AS result", "'[]' AS announced"))
"""What lists are made of: arguments and result may be large, and only one run's are shown."""
_OPEN = ",".join(f"'{state.value}'" for state in OPEN_JOBS)
_ACTIVE = "SELECT launch_id FROM launches WHERE state<>'gone' AND state='active'"
"""Says not gone, too, so that the index of open launches serves."""


class JobRows:
    """Runs by id, user, chute and instance."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def insert(self, job: JobRun) -> None:
        """Keep a new run."""
        self._db.insert("jobs", _row(job))

    def get(self, job_id: str) -> JobRun | None:
        """Return one run, or None."""
        row = self._db.one("SELECT * FROM jobs WHERE job_id=?", (job_id,))
        return None if row is None else _job(row)

    def page(
        self,
        user_id: str,
        chute_ids: Collection[str],
        *,
        state: JobState | None = None,
        offset: int = 0,
        limit: int,
    ) -> tuple[int, tuple[JobRun, ...]]:
        """Return how many runs of these chutes a user has, and some of them, newest first."""
        where = "user_id=? AND chute_id IN (SELECT value FROM json_each(?))"
        values: tuple[Value, ...] = (user_id, json.dumps(sorted(chute_ids)))
        if state is not None:
            where, values = f"{where} AND state=?", (*values, state.value)
        sql = f"SELECT {_LIGHT} FROM jobs WHERE {where}"  # noqa: S608 # our own names
        order = " ORDER BY created_at_s DESC, job_id LIMIT ? OFFSET ?"
        total = self._db.number(f"SELECT count(*) FROM jobs WHERE {where}", values)  # noqa: S608
        rows = self._db.all(sql + order, (*values, limit, offset))
        return total, tuple(map(_job, rows))

    def chutes_of(self, user_id: str) -> tuple[str, ...]:
        """Return the chutes that a user's runs are of."""
        rows = self._db.all("SELECT DISTINCT chute_id FROM jobs WHERE user_id=?", (user_id,))
        return tuple(row["chute_id"] for row in rows)

    def open(self) -> tuple[JobRun, ...]:
        """Return every run that has not ended, oldest first."""
        sql = f"SELECT {_LIGHT} FROM jobs WHERE state IN ({_OPEN}) ORDER BY created_at_s, job_id"  # noqa: S608 # our own states
        return tuple(map(_job, self._db.all(sql)))

    def count_open(self, user_id: str) -> int:
        """Return how many of a user's runs have not ended."""
        sql = f"SELECT count(*) FROM jobs WHERE user_id=? AND state IN ({_OPEN})"  # noqa: S608
        return self._db.number(sql, (user_id,))

    def count_of(self, user_id: str) -> int:
        """Return how many runs of a user are kept, ended or not."""
        return self._db.number("SELECT count(*) FROM jobs WHERE user_id=?", (user_id,))

    def stored_bytes(self, user_id: str) -> int:
        """Return how many bytes of files are kept for a user."""
        return self._db.number("SELECT sum(stored_bytes) FROM jobs WHERE user_id=?", (user_id,))

    def waiting(self, chute_id: str) -> int:
        """Return how many runs of a chute have no instance yet."""
        sql = "SELECT count(*) FROM jobs WHERE chute_id=? AND state='pending'"
        return self._db.number(sql, (chute_id,))

    def claimed(self) -> frozenset[str]:
        """Return the open launches whose instance is, or was, a run's alone."""
        rows = self._db.all(
            "SELECT launch_id FROM launches WHERE state<>'gone' AND EXISTS (SELECT 1 FROM jobs"
            " WHERE jobs.launch_id=launches.launch_id AND jobs.launch_id<>'')"
        )
        return frozenset(row["launch_id"] for row in rows)

    def left_over(self) -> tuple[JobRun, ...]:
        """Return ended runs whose instance is active still."""
        rows = self._db.all(
            f"SELECT {_LIGHT} FROM jobs WHERE state NOT IN ({_OPEN}) AND launch_id<>''"  # noqa: S608
            f" AND launch_id IN ({_ACTIVE})"
        )
        return tuple(map(_job, rows))

    def ended_before(self, at_us: int) -> tuple[JobRun, ...]:
        """Return the runs that ended before a time, oldest first."""
        sql = (
            f"SELECT {_LIGHT} FROM jobs WHERE state NOT IN ({_OPEN}) AND ended_at_us<?"  # noqa: S608
            " ORDER BY ended_at_us, job_id"
        )
        return tuple(map(_job, self._db.all(sql, (at_us,))))

    def lost_since(self, user_id: str, at_us: int) -> int:
        """Return how many runs of a user since a time began and were lost free of charge."""
        sql = (
            "SELECT count(*) FROM jobs WHERE user_id=? AND state='failed' AND started_at_us>0"
            " AND reason<>'no_space' AND charge_rao=0 AND ended_at_us>=?"
        )
        return self._db.number(sql, (user_id, at_us))

    def blob_in_use(self, sha256: str) -> bool:
        """Tell whether a run's file has these bytes."""
        sql = "SELECT count(*) FROM job_files WHERE sha256=?"
        return self._db.number(sql, (sha256,)) > 0

    def advance(
        self, job_id: str, from_state: JobState, to_state: JobState, **changes: Change
    ) -> JobRun:
        """Move a run on and return it.

        Raises:
            Conflict: ``bad_transition``, or ``job_moved`` where it is not in ``from_state``.
        """
        check_step(from_state, to_state)
        return self._change(job_id, from_state, {**changes, "state": to_state})

    def update(self, job_id: str, in_state: JobState, **changes: Change) -> JobRun:
        """Change fields of a run that stays in its state.

        Raises:
            Conflict: ``job_moved``.
        """
        return self._change(job_id, in_state, changes)

    def delete(self, job_id: str) -> bool:
        """Forget a run that has ended with its instance; False where there is none."""
        with self._db.transaction():
            sql = (
                f"DELETE FROM jobs WHERE job_id=? AND state NOT IN ({_OPEN}) AND launch_id"  # noqa: S608
                f" NOT IN ({_ACTIVE})"
            )
            if not self._db.change(sql, (job_id,)):
                return False
            self._db.change("DELETE FROM job_files WHERE job_id=?", (job_id,))
        return True

    def next_sequence(self, worker: str) -> int:
        """Return the next sequence of the invocations that stand for runs."""
        sql = "SELECT max(sequence) FROM invocations WHERE worker=?"
        return self._db.number(sql, (worker,)) + 1

    def _change(self, job_id: str, in_state: JobState, changes: dict[str, Change]) -> JobRun:
        columns = {name: _value(value) for name, value in changes.items()}
        with self._db.transaction():
            files = changes.get("files")
            if isinstance(files, tuple):
                self._keep_files(job_id, files)
                columns["stored_bytes"] = sum(
                    one.size_bytes for one in files if isinstance(one, StoredFile)
                )
            where = "job_id=? AND state=?"
            moved = self._db.update("jobs", columns, where, (job_id, in_state.value))
            job = self.get(job_id)
            if job is None or not moved:
                found = "missing" if job is None else job.state.value
                raise Conflict("job_moved", f"the job is {found}, not {in_state.value}")
        return job

    def _keep_files(self, job_id: str, files: tuple[object, ...]) -> None:
        self._db.change("DELETE FROM job_files WHERE job_id=?", (job_id,))
        for sha256 in {one.sha256 for one in files if isinstance(one, StoredFile)}:
            self._db.insert("job_files", {"job_id": job_id, "sha256": sha256})


def specs_text(jobs: tuple[JobSpec, ...]) -> str:
    """Return declared jobs as the text that a chute's row keeps."""
    return json.dumps([asdict(job) for job in jobs])


def specs(text: str) -> tuple[JobSpec, ...]:
    """Return the declared jobs of a chute's row."""
    return tuple(
        JobSpec(**{**job, "ports": _ports(job["ports"])}) for job in json.loads(text or "[]")
    )


def _ports(found: list[dict[str, object]]) -> tuple[JobPort, ...]:
    return tuple(JobPort(str(p["name"]), int(str(p["port"])), str(p["proto"])) for p in found)


def _value(value: Change) -> Value:
    if isinstance(value, JobState):
        return value.value
    if isinstance(value, tuple):
        plain = [asdict(one) if isinstance(one, StoredFile) else list(one) for one in value]
        return json.dumps(plain)
    return int(value) if isinstance(value, bool) else value


def _row(job: JobRun) -> dict[str, Value]:
    return {
        "job_id": job.job_id,
        "user_id": job.user_id,
        "key_id": job.key_id,
        "chute_id": job.chute_id,
        "name": job.name,
        "arguments": job.arguments,
        "limit_s": job.limit_s,
        "upload": int(job.upload),
        "ports": json.dumps([asdict(port) for port in job.ports]),
        "rate_id": job.rate.rate_id,
        "rao_per_hour": job.rate.rao_per_hour,
        "hold_rao": job.rate.hold_rao,
        "created_at_s": job.created_at_s,
        "state": job.state.value,
        "reason": job.reason,
        "detail": job.detail,
        "version": job.version,
        "launch_id": job.launch_id,
        "cancel_asked": int(job.cancel_asked),
        "claimed_at_us": job.claimed_at_us,
        "started_at_us": job.started_at_us,
        "seen_at_us": job.seen_at_us,
        "ended_at_us": job.ended_at_us,
        "usage_us": job.usage_us,
        "charge_rao": job.charge_rao,
        "outcome": job.outcome,
        "result": job.result,
        "announced": _value(job.announced),
        "files": _value(job.files),
        "stored_bytes": sum(file.size_bytes for file in job.files),
    }


def _job(row: sqlite3.Row) -> JobRun:
    return JobRun(
        job_id=row["job_id"],
        user_id=row["user_id"],
        key_id=row["key_id"],
        chute_id=row["chute_id"],
        name=row["name"],
        arguments=row["arguments"],
        limit_s=row["limit_s"],
        upload=bool(row["upload"]),
        ports=_ports(json.loads(row["ports"])),
        rate=Rate(row["rate_id"], row["rao_per_hour"], row["hold_rao"]),
        created_at_s=row["created_at_s"],
        state=JobState(row["state"]),
        reason=row["reason"],
        detail=row["detail"],
        version=row["version"],
        launch_id=row["launch_id"],
        cancel_asked=bool(row["cancel_asked"]),
        claimed_at_us=row["claimed_at_us"],
        started_at_us=row["started_at_us"],
        seen_at_us=row["seen_at_us"],
        ended_at_us=row["ended_at_us"],
        usage_us=row["usage_us"],
        charge_rao=row["charge_rao"],
        outcome=row["outcome"],
        result=row["result"],
        announced=tuple((name, size) for name, size in json.loads(row["announced"])),
        files=tuple(StoredFile(**file) for file in json.loads(row["files"])),
    )
