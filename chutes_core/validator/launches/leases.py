"""The leases that this validator knows, its own and other validators'.

Every lease is a miner's signed word, so it matters not from whom it was heard. Invariant: a GPU
with two leases to different validators that share a block is in conflict from then on, for all
blocks that the two share, and no flood of leases hides one, not over a restart either.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loguru import logger

from chutes_core.base.errors import ChutesError, Conflict, Forbidden
from chutes_core.validator.launches.ports import ChainView
from chutes_core.validator.store.leases import LeaseRows
from chutes_core.wire.lease import LEASES_PAGE, Lease, Place

MAX_LEASES_PER_MINER = 4_096
"""Of one miner, ending today or later: 64 GPUs that change hands each half an hour."""
DAY_BLOCKS = 7_200
MAX_FORGED = 10
"""A list with more forged leases is not read to its end."""


@dataclass(frozen=True)
class Learned:
    """What became of a list of leases."""

    kept: int
    forged: int


class LeaseBook:
    """Checks, remembers and compares leases.

    Args:
        store: where they are kept.
        chain: says who is registered, and the block.
        self_hotkey: of this validator.
        per_miner: leases of a miner that end today or later; with more, one that would show a
            conflict could be crowded out, so the miner gets nothing until a day has passed.
    """

    def __init__(
        self,
        store: LeaseRows,
        chain: ChainView,
        *,
        self_hotkey: str,
        per_miner: int = MAX_LEASES_PER_MINER,
    ) -> None:
        self._store = store
        self._chain = chain
        self._self = self_hotkey
        self._per_miner = per_miner

    def learn(self, leases: Iterable[Lease], *, miner_hotkey: str | None = None) -> Learned:
        """Remember leases heard from a miner or another validator.

        Left out are forged ones, those that are over, and those of who is not registered.

        Args:
            leases: as received.
            miner_hotkey: when given, leases of other miners are left out too.
        """
        kept = forged = 0
        for lease in leases:
            if miner_hotkey is not None and lease.miner_hotkey != miner_hotkey:
                continue
            try:
                kept += self._keep(lease)
            except ChutesError:
                forged += 1  # one bad lease never hides the others, many end the reading
            if forged > MAX_FORGED:
                break
        return Learned(kept, forged)

    def require(
        self, leases: Sequence[Lease], *, miner_hotkey: str, gpu_uuids: Sequence[str], block: int
    ) -> None:
        """Check that every GPU is leased to this validator now, and remember the leases.

        Raises:
            Unauthenticated: a forged lease.
            Forbidden: ``no_lease`` for a GPU.
            Conflict: ``lease_conflict``, ``too_many_leases``.
        """
        for lease in leases:
            lease.check_signature()
            if lease.miner_hotkey == miner_hotkey:
                self._keep(lease)
        if self._is_overfull(miner_hotkey):
            raise Conflict(
                "too_many_leases",
                f"{miner_hotkey} has more than {self._per_miner} leases of a day",
                hint="sign longer leases, and one per GPU at a time; it may try again in a day",
            )
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
        """Tell whether the GPU's lease to us at ``block`` overlaps one to somebody else.

        Of a miner with too many leases nobody can know, so it counts as if.
        """
        if self._is_overfull(miner_hotkey):
            return True
        known = self._store.of_gpu(miner_hotkey, gpu_uuid, block)
        ours = [lease for lease in known if self._holds(lease, miner_hotkey, gpu_uuid, block)]
        return any(mine.conflicts_with(other) for mine in ours for other in known)

    def held(self, miner_hotkey: str, gpu_uuid: str, block: int) -> bool:
        """Tell whether the GPU is leased to us at ``block``, as far as we have heard."""
        known = self._store.of_gpu(miner_hotkey, gpu_uuid, block)
        return any(self._holds(lease, miner_hotkey, gpu_uuid, block) for lease in known)

    def known(
        self, block: int, *, after: Place | None = None, miner_hotkey: str | None = None
    ) -> tuple[Lease, ...]:
        """Return a page of the leases that are not over at ``block``."""
        return self._store.page(block, after=after, miner_hotkey=miner_hotkey, limit=LEASES_PAGE)

    def _keep(self, lease: Lease) -> bool:
        """Keep a lease that may matter; False where it is left out.

        Raises:
            Unauthenticated: it is forged.
        """
        miner, block = lease.miner_hotkey, self._chain.block
        if lease.to_block < block or self._chain.miner(miner) is None:
            return False
        if self._store.has(lease):
            return True
        lease.check_signature()
        if self._store.count(miner, block - DAY_BLOCKS) >= self._per_miner:
            if not self._is_overfull(miner):
                logger.warning("miner signs too many leases", miner=miner)
            self._store.left_out(miner, block)
            return False
        self._store.upsert(lease)
        return True

    def _is_overfull(self, miner_hotkey: str) -> bool:
        since = self._store.left_out_at(miner_hotkey)
        return since is not None and self._chain.block <= since + DAY_BLOCKS

    def _holds(self, lease: Lease, miner_hotkey: str, gpu_uuid: str, block: int) -> bool:
        return (
            lease.miner_hotkey == miner_hotkey
            and lease.gpu_uuid == gpu_uuid
            and lease.validator_hotkey == self._self
            and lease.covers(block)
        )
