"""Rows of summonses: which GPUs were called to a round and have answered nothing since.

Invariant: a row goes only where its GPU has answered or is out; see launches/summonses.
"""

from chutes_core.validator.domain.gpus import Summons
from chutes_core.validator.store.connection import Connection


class SummonsRows:
    """One summons for each miner and GPU."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def put(self, summons: Summons) -> None:
        """Keep a summons; it replaces the GPU's one before."""
        self._db.insert(
            "gpu_summonses",
            {
                "miner_hotkey": summons.miner_hotkey,
                "gpu_uuid": summons.gpu_uuid,
                "launch_id": summons.launch_id,
            },
            known="replace",
        )

    def drop(self, miner_hotkey: str, gpu_uuid: str) -> None:
        """Forget a GPU's summons."""
        self._db.change(
            "DELETE FROM gpu_summonses WHERE miner_hotkey=? AND gpu_uuid=?",
            (miner_hotkey, gpu_uuid),
        )

    def drop_unbound(self) -> None:
        """Forget every summons to a round that has come to no end."""
        self._db.change("DELETE FROM gpu_summonses WHERE launch_id=''")

    def all(self, miner_hotkey: str | None = None) -> tuple[Summons, ...]:
        """Return the summonses of one miner, or of all."""
        rows = self._db.all(
            "SELECT * FROM gpu_summonses WHERE miner_hotkey=coalesce(?, miner_hotkey)"
            " ORDER BY miner_hotkey, gpu_uuid",
            (miner_hotkey,),
        )
        return tuple(
            Summons(row["miner_hotkey"], row["gpu_uuid"], row["launch_id"]) for row in rows
        )
