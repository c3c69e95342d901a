"""Rows of proofs: the whole record as JSON, with the columns that questions are asked by."""

import json
from dataclasses import asdict
from typing import Any

from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import GpuVerdict, Proof
from chutes_core.validator.store.connection import Connection


class ProofRows:
    """Proofs by id, launch and miner."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def insert(self, proof: Proof) -> None:
        """Keep one proof, accepted or not."""
        self._db.insert(
            "proofs",
            {
                "proof_id": proof.proof_id,
                "launch_id": proof.launch_id,
                "miner_hotkey": proof.miner_hotkey,
                "at_s": proof.at_s,
                "accepted": int(proof.accepted),
                "test": int(proof.test),
                "record": json.dumps(asdict(proof)),
            },
        )

    def get(self, proof_id: str) -> Proof | None:
        """Return one proof, or None."""
        row = self._db.one("SELECT record FROM proofs WHERE proof_id=?", (proof_id,))
        return None if row is None else _proof(row["record"])

    def by_launch(self, launch_id: str) -> tuple[Proof, ...]:
        """Return a launch's proofs, oldest first."""
        rows = self._db.all(
            "SELECT record FROM proofs WHERE launch_id=? ORDER BY at_s, proof_id", (launch_id,)
        )
        return tuple(_proof(row["record"]) for row in rows)

    def by_miner(self, miner_hotkey: str, since_s: int) -> tuple[Proof, ...]:
        """Return a miner's proofs at or after a time, oldest first."""
        rows = self._db.all(
            "SELECT record FROM proofs WHERE miner_hotkey=? AND at_s>=? ORDER BY at_s, proof_id",
            (miner_hotkey, since_s),
        )
        return tuple(_proof(row["record"]) for row in rows)

    def between(self, from_s: int, to_s: int) -> tuple[Proof, ...]:
        """Return the proofs of a time window [from, to), oldest first."""
        rows = self._db.all(
            "SELECT record FROM proofs WHERE at_s>=? AND at_s<? ORDER BY at_s, proof_id",
            (from_s, to_s),
        )
        return tuple(_proof(row["record"]) for row in rows)


def _proof(record: str) -> Proof:
    fields: dict[str, Any] = json.loads(record)
    gpus = tuple(_verdict(gpu) for gpu in fields.pop("gpus"))
    return Proof(gpus=gpus, **fields)


def _verdict(fields: dict[str, Any]) -> GpuVerdict:
    return GpuVerdict(reason=Reason(fields.pop("reason")), **fields)
