"""Rows of leases, one's own and those other validators showed (their signatures are the miners').

Invariant: two leases of one GPU to different validators that share a block are both kept, so that
the conflict can be shown; a lease is dropped only after its last block is long past.
"""

import sqlite3

from chutes_core.validator.store.connection import Connection, Value
from chutes_core.wire.lease import Lease, Place


class LeaseRows:
    """Leases by GPU and by block."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def upsert(self, lease: Lease) -> bool:
        """Keep a lease whose signature was checked; True where it was not known yet.

        Raises:
            Invalid: ``out_of_range`` for block numbers beyond 64 bits.
        """
        return self._db.insert("leases", _row(lease), known="keep")

    def has(self, lease: Lease) -> bool:
        """Tell whether this very lease is kept, its signature too."""
        return (
            self._db.number(
                "SELECT count(*) FROM leases WHERE miner_hotkey=? AND gpu_uuid=?"
                " AND validator_hotkey=? AND from_block=? AND to_block=? AND signature=?",
                (*lease.place, lease.signature),
            )
            == 1
        )

    def page(
        self, block: int, *, after: Place | None, miner_hotkey: str | None, limit: int
    ) -> tuple[Lease, ...]:
        """Return leases that hold at ``block`` or later, in the order of their places.

        Args:
            block: a lease that ended before it is left out.
            after: only places behind this one.
            miner_hotkey: only this miner's.
            limit: how many at most.
        """
        rows = self._db.all(
            "SELECT * FROM leases WHERE to_block >= ? AND (? IS NULL OR miner_hotkey=?)"
            " AND (miner_hotkey, gpu_uuid, validator_hotkey, from_block, to_block) > (?,?,?,?,?)"
            " ORDER BY miner_hotkey, gpu_uuid, validator_hotkey, from_block, to_block LIMIT ?",
            (block, miner_hotkey, miner_hotkey, *(after or ("", "", "", 0, 0)), limit),
        )
        return tuple(map(_lease, rows))

    def count(self, miner_hotkey: str, block: int) -> int:
        """Return how many leases of a miner hold at ``block`` or later."""
        return self._db.number(
            "SELECT count(*) FROM leases WHERE miner_hotkey=? AND to_block >= ?",
            (miner_hotkey, block),
        )

    def left_out(self, miner_hotkey: str, block: int) -> None:
        """Keep that a lease of a miner was left out at a block, because it had too many."""
        row: dict[str, Value] = {"miner_hotkey": miner_hotkey, "block": block}
        self._db.insert("leases_left_out", row, known="replace")

    def left_out_at(self, miner_hotkey: str) -> int | None:
        """Return the block at which a lease of a miner was left out last."""
        row = self._db.one(
            "SELECT block FROM leases_left_out WHERE miner_hotkey=?", (miner_hotkey,)
        )
        return None if row is None else int(row["block"])

    def of_gpu(self, miner_hotkey: str, gpu_uuid: str, block: int) -> tuple[Lease, ...]:
        """Return the leases of one GPU that hold at ``block`` or later."""
        rows = self._db.all(
            "SELECT * FROM leases WHERE miner_hotkey=? AND gpu_uuid=? AND to_block >= ?"
            " ORDER BY from_block, validator_hotkey",
            (miner_hotkey, gpu_uuid, block),
        )
        return tuple(map(_lease, rows))

    def conflicts_of(self, lease: Lease) -> tuple[Lease, ...]:
        """Return the stored leases that promise the same GPU to another validator meanwhile."""
        rows = self._db.all(
            "SELECT * FROM leases WHERE miner_hotkey=? AND gpu_uuid=? AND validator_hotkey<>?"
            " AND from_block <= ? AND to_block >= ? ORDER BY from_block, validator_hotkey",
            (
                lease.miner_hotkey,
                lease.gpu_uuid,
                lease.validator_hotkey,
                lease.to_block,
                lease.from_block,
            ),
        )
        return tuple(map(_lease, rows))

    def conflicts(self, from_block: int, to_block: int) -> frozenset[tuple[str, str]]:
        """Return (miner hotkey, GPU) of every GPU promised twice at a block of the range."""
        rows = self._db.all(
            "SELECT DISTINCT a.miner_hotkey, a.gpu_uuid FROM leases a JOIN leases b"
            " ON a.miner_hotkey=b.miner_hotkey AND a.gpu_uuid=b.gpu_uuid"
            " AND a.validator_hotkey < b.validator_hotkey"
            " WHERE max(a.from_block, b.from_block, ?) <= min(a.to_block, b.to_block, ?)",
            (from_block, to_block),
        )
        return frozenset((row["miner_hotkey"], row["gpu_uuid"]) for row in rows)

    def prune(self, before_block: int) -> int:
        """Drop leases that ended before a block; returns how many."""
        return self._db.change("DELETE FROM leases WHERE to_block < ?", (before_block,))


def _row(lease: Lease) -> dict[str, Value]:
    return {
        "miner_hotkey": lease.miner_hotkey,
        "gpu_uuid": lease.gpu_uuid,
        "validator_hotkey": lease.validator_hotkey,
        "from_block": lease.from_block,
        "to_block": lease.to_block,
        "signature": lease.signature,
    }


def _lease(row: sqlite3.Row) -> Lease:
    return Lease(
        miner_hotkey=row["miner_hotkey"],
        gpu_uuid=row["gpu_uuid"],
        validator_hotkey=row["validator_hotkey"],
        from_block=row["from_block"],
        to_block=row["to_block"],
        signature=row["signature"],
    )
