"""What a miner must not forget: signed leases, launches in flight, nonces seen.

One small SQLite file in the data directory, mode 0600, for it holds relay tickets in clear: a
ticket only opens a TCP path to an instance on this very host, whose owner can read the file
anyway; it decrypts nothing. Invariant: every write is committed before the call returns, so that
what was signed or granted is known after a kill -9. SQL of the miner lives only here.
"""

import json
import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlite_utils import Database

from chutes_core.wire.lease import Lease

LaunchState = Literal["granted", "listening", "ended"]
_KEPT_LEASES = 50_000


@dataclass(frozen=True)
class LaunchRecord:
    """One granted launch as this miner knows it, from the grant until its end was reported.

    ``ended`` means that the instance is gone and the report of it has not reached the validator.
    """

    launch_id: str
    validator_hotkey: str
    chute_id: str
    version: str
    image_id: str
    image_sha256: str
    gpu_uuids: tuple[str, ...]
    ticket: str
    state: LaunchState
    port: int = 0
    public_key: str = ""
    end_reason: str = ""
    end_detail: str = ""


class MinerStore:
    """The file; safe to call from several threads of one process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._lock = threading.RLock()
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        self._db = Database(connection)
        self._connection = connection
        self._create()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add_lease(self, lease: Lease) -> None:
        """Remember a lease that was signed."""
        with self._lock:
            self._connection.execute(
                "INSERT OR IGNORE INTO leases VALUES (?, ?, ?, ?, ?, ?)",
                (
                    lease.miner_hotkey,
                    lease.gpu_uuid,
                    lease.validator_hotkey,
                    lease.from_block,
                    lease.to_block,
                    lease.signature,
                ),
            )

    def leases(self, *, miner_hotkey: str, since_block: int = 0) -> tuple[Lease, ...]:
        """Return the leases of one hotkey that end at or after a block, oldest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT * FROM leases WHERE miner_hotkey = ? AND to_block >= ?"
                " ORDER BY from_block, gpu_uuid LIMIT ?",
                (miner_hotkey, since_block, _KEPT_LEASES),
            ).fetchall()
        return tuple(
            Lease(
                miner_hotkey=row[0],
                gpu_uuid=row[1],
                validator_hotkey=row[2],
                from_block=row[3],
                to_block=row[4],
                signature=row[5],
            )
            for row in rows
        )

    def forget_leases(self, *, before_block: int) -> None:
        """Drop leases that ended long ago."""
        with self._lock:
            self._connection.execute("DELETE FROM leases WHERE to_block < ?", (before_block,))

    def put_launch(self, record: LaunchRecord) -> None:
        """Write or replace a launch."""
        values = {**record.__dict__, "gpu_uuids": json.dumps(record.gpu_uuids)}
        marks = ", ".join("?" for _ in values)
        with self._lock:
            self._connection.execute(
                f"INSERT OR REPLACE INTO launches ({', '.join(values)}) VALUES ({marks})",  # noqa: S608 - the names are the record's own fields
                tuple(values.values()),
            )

    def launches(self) -> tuple[LaunchRecord, ...]:
        """Return every launch whose end was not reported yet."""
        with self._lock:
            rows = list(self._db["launches"].rows)
        return tuple(
            LaunchRecord(**{**row, "gpu_uuids": tuple(json.loads(row["gpu_uuids"]))})
            for row in rows
        )

    def delete_launch(self, launch_id: str) -> None:
        """Forget a launch whose end was reported."""
        with self._lock:
            self._connection.execute("DELETE FROM launches WHERE launch_id = ?", (launch_id,))

    def check_and_store(self, hotkey_ss58: str, nonce: str, expires_s: int) -> bool:
        """Record a nonce once; see `chutes_core.wire.signing.NonceStore`."""
        with self._lock:
            cursor = self._connection.execute(
                "INSERT OR IGNORE INTO nonces VALUES (?, ?, ?)", (hotkey_ss58, nonce, expires_s)
            )
            return cursor.rowcount == 1

    def forget_nonces(self, *, now_s: int) -> None:
        """Drop nonces whose freshness window has passed."""
        with self._lock:
            self._connection.execute("DELETE FROM nonces WHERE expires_s < ?", (now_s,))

    def _create(self) -> None:
        self._db.table("leases").create(
            {
                "miner_hotkey": str,
                "gpu_uuid": str,
                "validator_hotkey": str,
                "from_block": int,
                "to_block": int,
                "signature": str,
            },
            pk=("miner_hotkey", "gpu_uuid", "from_block"),
            if_not_exists=True,
        )
        self._db.table("launches").create(
            {
                "launch_id": str,
                "validator_hotkey": str,
                "chute_id": str,
                "version": str,
                "image_id": str,
                "image_sha256": str,
                "gpu_uuids": str,
                "ticket": str,
                "state": str,
                "port": int,
                "public_key": str,
                "end_reason": str,
                "end_detail": str,
            },
            pk="launch_id",
            if_not_exists=True,
        )
        self._db.table("nonces").create(
            {"hotkey": str, "nonce": str, "expires_s": int},
            pk=("hotkey", "nonce"),
            if_not_exists=True,
        )
