"""Rows of invocations, as drained from the gateway's journals.

Invariant: (worker, sequence) is stored once, and `drained` says up to which sequence a worker's
records are in the ledger; both change in one transaction with the charges and the sums.
"""

import sqlite3
from collections.abc import Iterable

from chutes_core.validator.domain.invocations import CHARGED, Batch, Invocation
from chutes_core.validator.store.connection import Connection, Value
from chutes_core.validator.store.paid_work import PaidWorkRows


class InvocationRows:
    """Invocations by worker and sequence, and by time."""

    def __init__(self, connection: Connection, paid_work: PaidWorkRows) -> None:
        self._db = connection
        self._paid_work = paid_work

    def insert_many(self, invocations: Iterable[Invocation]) -> tuple[Invocation, ...]:
        """Keep and count what is new by (worker, sequence) and return just that, in order."""
        with self._db.transaction():
            new = tuple(
                invocation
                for invocation in invocations
                if self._db.insert("invocations", _row(invocation), known="keep")
            )
            self._paid_work.add(new)
            return new

    def get(self, invocation_id: str) -> Invocation | None:
        """Return one invocation, or None."""
        row = self._db.one("SELECT * FROM invocations WHERE invocation_id=?", (invocation_id,))
        return None if row is None else _invocation(row)

    def between(self, from_us: int, to_us: int) -> tuple[Invocation, ...]:
        """Return the invocations that started inside [from, to), in order of time."""
        rows = self._db.all(
            "SELECT * FROM invocations WHERE started_at_us>=? AND started_at_us<?"
            " ORDER BY started_at_us, worker, sequence",
            (from_us, to_us),
        )
        return tuple(map(_invocation, rows))

    def count_of_chute(self, chute_id: str) -> int:
        """Return how many calls a chute has answered or failed."""
        sql = "SELECT count(*) FROM invocations WHERE chute_id=?"
        return self._db.number(sql, (chute_id,))

    def free_since(self, from_us: int) -> dict[str, int]:
        """Return user id -> free calls that count, of those begun at ``from_us`` or later."""
        rows = self._db.all(
            "SELECT user_id, count(*) AS calls FROM invocations WHERE free=1"
            " AND started_at_us>=? AND outcome IN (?,?,?) GROUP BY user_id",
            (from_us, *CHARGED),
        )
        return {row["user_id"]: row["calls"] for row in rows}

    def of_launch(self, launch_id: str, after_us: int, limit: int) -> tuple[Invocation, ...]:
        """Return an instance's calls that began after a time, oldest first."""
        rows = self._db.all(
            "SELECT * FROM invocations WHERE launch_id=? AND started_at_us>?"
            " ORDER BY started_at_us, worker, sequence LIMIT ?",
            (launch_id, after_us, limit),
        )
        return tuple(map(_invocation, rows))

    def add_batch(self, batch: Batch) -> None:
        """Keep a signed batch."""
        row: dict[str, Value] = dict(vars(batch))
        self._db.insert("batches", row)

    def batch_of(self, worker: str, sequence: int) -> Batch | None:
        """Return the batch with which a record was settled, or None."""
        row = self._db.one(
            "SELECT * FROM batches WHERE worker=? AND first<=? ORDER BY first DESC LIMIT 1",
            (worker, sequence),
        )
        return None if row is None or row["last"] < sequence else Batch(**dict(row))

    def of_batch(self, batch: Batch) -> tuple[Invocation, ...]:
        """Return the records of a batch, in order."""
        rows = self._db.all(
            "SELECT * FROM invocations WHERE worker=? AND sequence BETWEEN ? AND ?"
            " ORDER BY sequence",
            (batch.worker, batch.first, batch.last),
        )
        return tuple(map(_invocation, rows))

    def drained(self) -> dict[str, int]:
        """Return worker -> the last sequence that is wholly in the store."""
        return {row["worker"]: row["sequence"] for row in self._db.all("SELECT * FROM drained")}

    def drained_of(self, worker: str) -> int:
        """Return a worker's last drained sequence; 0 before the first (sequences count from 1)."""
        return self._db.number("SELECT sequence FROM drained WHERE worker=?", (worker,))

    def set_drained(self, worker: str, sequence: int) -> None:
        """Note how far a worker's journal is drained."""
        row: dict[str, Value] = {"worker": worker, "sequence": sequence}
        self._db.insert("drained", row, known="replace")


def _row(invocation: Invocation) -> dict[str, Value]:
    return {
        "worker": invocation.worker,
        "sequence": invocation.sequence,
        "invocation_id": invocation.invocation_id,
        "user_id": invocation.user_id,
        "key_id": invocation.key_id,
        "chute_id": invocation.chute_id,
        "launch_id": invocation.launch_id,
        "rate_id": invocation.rate_id,
        "rao_per_hour": invocation.rao_per_hour,
        "hold_rao": invocation.hold_rao,
        "free": int(invocation.free),
        "started_at_us": invocation.started_at_us,
        "usage_us": invocation.usage_us,
        "bytes_in": invocation.bytes_in,
        "bytes_out": invocation.bytes_out,
        "attempts": invocation.attempts,
        "status": invocation.status,
        "outcome": invocation.outcome,
        "prompt_tokens": invocation.prompt_tokens,
        "completion_tokens": invocation.completion_tokens,
    }


def _invocation(row: sqlite3.Row) -> Invocation:
    return Invocation(
        worker=row["worker"],
        sequence=row["sequence"],
        invocation_id=row["invocation_id"],
        user_id=row["user_id"],
        key_id=row["key_id"],
        chute_id=row["chute_id"],
        launch_id=row["launch_id"],
        rate_id=row["rate_id"],
        rao_per_hour=row["rao_per_hour"],
        hold_rao=row["hold_rao"],
        free=bool(row["free"]),
        started_at_us=row["started_at_us"],
        usage_us=row["usage_us"],
        bytes_in=row["bytes_in"],
        bytes_out=row["bytes_out"],
        attempts=row["attempts"],
        status=row["status"],
        outcome=row["outcome"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
    )
