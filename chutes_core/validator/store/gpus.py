"""Rows of GPUs: which are admitted, who was seen with which, and which are contested.

A GPU is known by its UUID, and by its PCI id at an address: two hotkeys that show the same one are
both blocked. Invariant: a contest goes only with `settle`, never by time.
"""

import sqlite3

from chutes_core.validator.domain.gpus import Admission, Sighting
from chutes_core.validator.store.connection import Connection, Value


class GpuRows:
    """Admissions by miner and GPU; sightings and contests by key."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def admit(self, admission: Admission) -> None:
        """Keep a GPU's admission; it replaces the one before."""
        self._db.insert(
            "gpu_admissions",
            {
                "miner_hotkey": admission.miner_hotkey,
                "gpu_uuid": admission.gpu_uuid,
                "gpu_class": admission.gpu_class,
                "counts_as": admission.counts_as,
                "proof_id": admission.proof_id,
                "profile": admission.profile,
                "at_s": admission.at_s,
                "proven_at_s": admission.proven_at_s,
            },
            known="replace",
        )

    def proven(self, miner_hotkey: str, gpu_uuid: str, at_s: int) -> None:
        """Take note of a later full challenge that an admitted GPU passed."""
        self._db.update(
            "gpu_admissions",
            {"proven_at_s": at_s},
            "miner_hotkey=? AND gpu_uuid=?",
            (miner_hotkey, gpu_uuid),
        )

    def revoke(self, miner_hotkey: str, gpu_uuid: str) -> None:
        """Forget a GPU's admission."""
        self._db.change(
            "DELETE FROM gpu_admissions WHERE miner_hotkey=? AND gpu_uuid=?",
            (miner_hotkey, gpu_uuid),
        )

    def admissions(self, miner_hotkey: str, since_s: int) -> tuple[Admission, ...]:
        """Return a miner's admissions at or after a time."""
        rows = self._db.all(
            "SELECT * FROM gpu_admissions WHERE miner_hotkey=? AND at_s>=? ORDER BY gpu_uuid",
            (miner_hotkey, since_s),
        )
        return tuple(map(_admission, rows))

    def admitted_miners(self, since_s: int) -> frozenset[str]:
        """Return the hotkeys that have a GPU admitted at or after a time."""
        rows = self._db.all(
            "SELECT DISTINCT miner_hotkey FROM gpu_admissions WHERE at_s>=?", (since_s,)
        )
        return frozenset(row["miner_hotkey"] for row in rows)

    def saw(self, sighting: Sighting) -> tuple[str, ...]:
        """Keep who shows a GPU; return the hotkeys that contest it, where there are several.

        A sighting counts until the next of the same hotkey under the same key; others that are
        older than ``not_before_s`` are forgotten.
        """
        key = sighting.key
        with self._db.transaction():
            self._db.change(
                "DELETE FROM gpu_sightings WHERE gpu_key=? AND at_s<?", (key, sighting.not_before_s)
            )
            row: dict[str, Value] = {
                "gpu_key": key,
                "miner_hotkey": sighting.miner_hotkey,
                "gpu_uuid": sighting.gpu_uuid,
                "at_s": sighting.at_s,
            }
            self._db.insert("gpu_sightings", row, known="replace")
            rows = self._db.all(
                "SELECT * FROM gpu_sightings WHERE gpu_key=? ORDER BY miner_hotkey", (key,)
            )
            if len(rows) < 2:
                return ()
            for found in rows:
                contest: dict[str, Value] = {
                    "gpu_key": key,
                    "miner_hotkey": found["miner_hotkey"],
                    "gpu_uuid": found["gpu_uuid"],
                    "at_s": sighting.at_s,
                }
                self._db.insert("gpu_contests", contest, known="keep")
        return tuple(found["miner_hotkey"] for found in rows)

    def contested(self, miner_hotkey: str) -> frozenset[str]:
        """Return the UUIDs of a miner's GPUs that another hotkey shows too."""
        rows = self._db.all(
            "SELECT gpu_uuid FROM gpu_contests WHERE miner_hotkey=?", (miner_hotkey,)
        )
        return frozenset(row["gpu_uuid"] for row in rows)

    def rivals(self, miner_hotkey: str, gpu_uuid: str) -> tuple[tuple[str, str], ...]:
        """Return (hotkey, GPU) of everyone else in the contests of a miner's GPU."""
        rows = self._db.all(
            "SELECT DISTINCT other.miner_hotkey, other.gpu_uuid FROM gpu_contests AS own"
            " JOIN gpu_contests AS other ON other.gpu_key = own.gpu_key"
            " WHERE own.miner_hotkey=? AND own.gpu_uuid=? AND other.miner_hotkey<>?",
            (miner_hotkey, gpu_uuid, miner_hotkey),
        )
        return tuple((row["miner_hotkey"], row["gpu_uuid"]) for row in rows)

    def settle(self, miner_hotkey: str, gpu_uuid: str) -> int:
        """End a contest in favour of a miner; the others' sightings and admissions go.

        The others stay blocked until they have passed alone themselves. Returns how many keys were
        settled.
        """
        where = "SELECT gpu_key FROM gpu_contests WHERE miner_hotkey=? AND gpu_uuid=?"
        with self._db.transaction():
            keys = [row["gpu_key"] for row in self._db.all(where, (miner_hotkey, gpu_uuid))]
            for key in keys:
                self._db.change(
                    "DELETE FROM gpu_contests WHERE gpu_key=? AND miner_hotkey=?",
                    (key, miner_hotkey),
                )
                self._db.change(
                    "DELETE FROM gpu_sightings WHERE gpu_key=? AND miner_hotkey<>?",
                    (key, miner_hotkey),
                )
        return len(keys)


def _admission(row: sqlite3.Row) -> Admission:
    return Admission(
        miner_hotkey=row["miner_hotkey"],
        gpu_uuid=row["gpu_uuid"],
        gpu_class=row["gpu_class"],
        counts_as=row["counts_as"],
        proof_id=row["proof_id"],
        profile=row["profile"],
        at_s=row["at_s"],
        proven_at_s=row["proven_at_s"],
    )
