"""The leases that this validator knows, its own and other validators'.

Every lease is a miner's signed word, so it matters not from whom it was heard. Invariant: a GPU
with two leases to different validators that share a block is in conflict from then on, for all
blocks that the two share.
"""

from collections.abc import Iterable, Sequence

from chutes_core.base.errors import ChutesError, Conflict, Forbidden
from chutes_core.validator.store.leases import LeaseRows
from chutes_core.wire.lease import Lease


class LeaseBook:
    """Checks, remembers and compares leases."""

    def __init__(self, store: LeaseRows, *, self_hotkey: str) -> None:
        self._store = store
        self._self = self_hotkey

    def learn(self, leases: Iterable[Lease], *, miner_hotkey: str | None = None) -> int:
        """Remember leases heard from a miner or another validator; forged ones are dropped.

        Args:
            leases: as received.
            miner_hotkey: when given, leases of other miners are dropped too.

        Returns:
            How many were kept.
        """
        kept = 0
        for lease in leases:
            if miner_hotkey is not None and lease.miner_hotkey != miner_hotkey:
                continue
            try:
                lease.check_signature()
                self._store.upsert(lease)
            except ChutesError:
                continue  # one bad lease never hides the others
            kept += 1
        return kept

    def require(
        self, leases: Sequence[Lease], *, miner_hotkey: str, gpu_uuids: Sequence[str], block: int
    ) -> None:
        """Check that every GPU is leased to this validator now, and remember the leases.

        Raises:
            Unauthenticated: a forged lease.
            Forbidden: ``no_lease`` for a GPU.
            Conflict: ``lease_conflict``.
        """
        for lease in leases:
            lease.check_signature()
            if lease.miner_hotkey == miner_hotkey:
                self._store.upsert(lease)
        for gpu_uuid in gpu_uuids:
            if not any(self._holds(lease, miner_hotkey, gpu_uuid, block) for lease in leases):
                raise Forbidden(
                    "no_lease",
                    f"GPU {gpu_uuid} has no lease to this validator at block {block}",
                    hint=f"sign a lease to {self._self} that covers the block",
                )
            if self.conflicted(miner_hotkey, gpu_uuid, block):
                raise Conflict(
                    "lease_conflict",
                    f"GPU {gpu_uuid} is leased to two validators at block {block}",
                    hint="it earns nothing until one of the leases has run out",
                )

    def conflicted(self, miner_hotkey: str, gpu_uuid: str, block: int) -> bool:
        """Tell whether the GPU's lease to us at ``block`` overlaps one to somebody else."""
        known = self._store.of_gpu(miner_hotkey, gpu_uuid, block)
        ours = [lease for lease in known if self._holds(lease, miner_hotkey, gpu_uuid, block)]
        return any(mine.conflicts_with(other) for mine in ours for other in known)

    def held(self, miner_hotkey: str, gpu_uuid: str, block: int) -> bool:
        """Tell whether the GPU is leased to us at ``block``, as far as we have heard."""
        known = self._store.of_gpu(miner_hotkey, gpu_uuid, block)
        return any(self._holds(lease, miner_hotkey, gpu_uuid, block) for lease in known)

    def known(self, block: int) -> list[Lease]:
        """Return the leases that other validators may want to see (those not over at ``block``)."""
        return list(self._store.current(block))

    def _holds(self, lease: Lease, miner_hotkey: str, gpu_uuid: str, block: int) -> bool:
        return (
            lease.miner_hotkey == miner_hotkey
            and lease.gpu_uuid == gpu_uuid
            and lease.validator_hotkey == self._self
            and lease.covers(block)
        )
