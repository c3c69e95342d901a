"""Rows of epochs: the weights that were meant, what became of them, and the evidence.

Invariant: an intent is written before its extrinsic is sent, and an epoch that succeeded is never
written over.
"""

import json
import sqlite3
from collections.abc import Mapping

from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.epochs import EpochRecord
from chutes_core.validator.store.connection import Connection, Value


class EpochRows:
    """Epoch number -> record and evidence."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def last_submitted_epoch(self) -> int | None:
        """Return the newest epoch whose weights are on the chain, or None."""
        return self._last("SELECT max(epoch) FROM epochs WHERE extrinsic_hash<>''")

    def last_intended_epoch(self) -> int | None:
        """Return the newest epoch for which an extrinsic was or may have been sent, or None."""
        return self._last("SELECT max(epoch) FROM epochs WHERE intended_at_s IS NOT NULL")

    def get(self, epoch: int) -> EpochRecord | None:
        """Return what was done in an epoch, or None."""
        row = self._db.one(
            "SELECT * FROM epochs WHERE epoch=? AND intended_at_s IS NOT NULL", (epoch,)
        )
        return None if row is None else _record(row)

    def record_intent(self, epoch: int, weights: Mapping[int, int], *, at_s: int) -> None:
        """Write what will be sent, uid -> weight; a failed try of the same epoch is replaced.

        Raises:
            Conflict: ``epoch_done`` where the epoch's weights are on the chain already.
        """
        with self._db.transaction(durable=True):
            found = self.get(epoch)
            if found is not None and found.extrinsic_hash:
                raise Conflict("epoch_done", f"the weights of epoch {epoch} were set already")
            self._db.change(
                "INSERT INTO epochs(epoch, intended_at_s, weights, extrinsic_hash, block_hash,"
                " error) VALUES (?,?,?,'','','') ON CONFLICT(epoch) DO UPDATE SET"
                " intended_at_s=excluded.intended_at_s, weights=excluded.weights, error=''",
                (epoch, at_s, json.dumps(sorted(weights.items()))),
            )

    def record_result(
        self, epoch: int, *, extrinsic_hash: str, block_number: int, block_hash: str
    ) -> None:
        """Write that the epoch's extrinsic succeeded in a finalized block."""
        changes: dict[str, Value] = {
            "extrinsic_hash": extrinsic_hash,
            "block_number": block_number,
            "block_hash": block_hash,
            "error": "",
        }
        self._must_change(epoch, changes)

    def record_failure(self, epoch: int, *, error: str) -> None:
        """Write why the epoch's weights did not get onto the chain."""
        self._must_change(epoch, {"error": error})

    def put_evidence(self, epoch: int, evidence: str) -> None:
        """Keep the evidence (canonical JSON text) of an epoch."""
        self._db.change(
            "INSERT INTO epochs(epoch, weights, extrinsic_hash, block_hash, error, evidence)"
            " VALUES (?,'[]','','','',?)"
            " ON CONFLICT(epoch) DO UPDATE SET evidence=excluded.evidence",
            (epoch, evidence),
        )

    def evidence(self, epoch: int) -> str | None:
        """Return the evidence (JSON text) of an epoch, or None."""
        row = self._db.one("SELECT evidence FROM epochs WHERE epoch=?", (epoch,))
        return None if row is None else row["evidence"]

    def _last(self, sql: str) -> int | None:
        row = self._db.one(sql)
        return None if row is None or row[0] is None else int(row[0])

    def _must_change(self, epoch: int, changes: Mapping[str, Value]) -> None:
        where = "epoch=? AND intended_at_s IS NOT NULL"
        if not self._db.update("epochs", changes, where, (epoch,)):
            raise Conflict("no_intent", f"no weights were meant for epoch {epoch}")


def _record(row: sqlite3.Row) -> EpochRecord:
    return EpochRecord(
        epoch=row["epoch"],
        intended_at_s=row["intended_at_s"],
        weights=tuple((uid, weight) for uid, weight in json.loads(row["weights"])),
        extrinsic_hash=row["extrinsic_hash"],
        block_number=row["block_number"],
        block_hash=row["block_hash"],
        error=row["error"],
    )
