"""The book of leases: the only place where this miner signs one.

A GPU serves one validator at a time. Each lease is written to the store before it leaves this
module, and a new one begins after the end of everything that the store knows of that GPU. An
idle GPU's lease is short (a fifth), so that another validator that wants something gets it soon.
Invariant: two leases of one GPU never share a block, whatever stops and restarts happen between
them; so there is no way to ask this class for a second, overlapping one.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from bittensor_core import Keypair
from loguru import logger

from chutes_core.miner.departures import Promise
from chutes_core.miner.shares import share_gpus
from chutes_core.wire.lease import Lease

_HISTORY_BLOCKS = 50_400  # a week of 12 s blocks stays in the store, as evidence for disputes
_LEAST_IDLE_BLOCKS = 20
_LEAST_MARGIN_BLOCKS = 4
_SHORTEST_LEASE_BLOCKS = 8
MAX_LAUNCH_LEASES = 64  # what a LaunchRequest takes
_BACKDATED_BLOCKS = 2  # a validator may be a block or two behind this miner's view


class LeaseStore(Protocol):
    """What the book needs of the store."""

    def add_lease(self, lease: Lease) -> None:
        """Remember a lease."""
        ...

    def leases(self, *, miner_hotkey: str, since_block: int = 0) -> tuple[Lease, ...]:
        """Return leases that end at or after a block, oldest first."""
        ...

    def forget_leases(self, *, before_block: int) -> None:
        """Drop old leases."""
        ...


class LeaseBook:
    """Signs and renews; answers what holds."""

    def __init__(self, keypair: Keypair, store: LeaseStore, *, lease_blocks: int) -> None:
        self._keypair = keypair
        self._store = store
        self._lease_blocks = lease_blocks
        self._idle_blocks = max(lease_blocks // 5, min(lease_blocks, _LEAST_IDLE_BLOCKS))

    def adopt(self, leases: Sequence[Lease]) -> int:
        """Take over own leases that validators remember and this store has lost.

        Without this, a miner that lost its data directory could contradict itself. Returns how
        many were new. A lease that this hotkey did not sign raises and is not kept.
        """
        own = self._keypair.ss58_address
        known = set(self._store.leases(miner_hotkey=own))
        fresh = [lease for lease in leases if lease.miner_hotkey == own and lease not in known]
        for lease in fresh:
            lease.check_signature()
            self._store.add_lease(lease)
        return len(fresh)

    def current(self, block: int) -> tuple[Lease, ...]:
        """Return the leases that hold now or are promised for later."""
        return self._store.leases(miner_hotkey=self._keypair.ss58_address, since_block=block)

    def lessees(self, block: int) -> dict[str, str]:
        """Return GPU uuid -> validator for GPUs whose last promise is to who holds them now.

        A GPU that is promised to somebody else from a later block on is left out: nothing new may
        start on it.
        """
        last: dict[str, Lease] = {}
        holds: dict[str, str] = {}
        for lease in self.current(block):
            last[lease.gpu_uuid] = lease
            if lease.covers(block):
                holds[lease.gpu_uuid] = lease.validator_hotkey
        return {gpu: v for gpu, v in holds.items() if last[gpu].validator_hotkey == v}

    def last(self, block: int) -> dict[str, str]:
        """Return GPU uuid -> the validator of its last lease that holds now or later."""
        return {lease.gpu_uuid: lease.validator_hotkey for lease in self.current(block)}

    def promises(self, block: int) -> dict[str, Promise]:
        """Return GPU uuid -> the promise that holds now, prolonged by leases that follow it."""
        found: dict[str, Promise] = {}
        for lease in self.current(block):  # oldest first
            known = found.get(lease.gpu_uuid)
            if known is None:
                if lease.covers(block):
                    found[lease.gpu_uuid] = Promise(lease.validator_hotkey, lease.to_block)
            elif known.then is None and lease.validator_hotkey != known.validator_hotkey:
                found[lease.gpu_uuid] = Promise(
                    known.validator_hotkey, known.to_block, lease.validator_hotkey
                )
            elif known.then is None and lease.from_block == known.to_block + 1:
                found[lease.gpu_uuid] = Promise(known.validator_hotkey, lease.to_block)
        return found

    def covering(
        self, gpu_uuids: Sequence[str], validator_hotkey: str, block: int
    ) -> tuple[Lease, ...]:
        """Return the lease of each GPU that holds now; fewer than GPUs where one is missing."""
        holding = {
            lease.gpu_uuid: lease
            for lease in self.current(block)
            if lease.covers(block) and lease.validator_hotkey == validator_hotkey
        }
        return tuple(holding[gpu] for gpu in gpu_uuids if gpu in holding)

    def with_next(self, leases: Sequence[Lease]) -> tuple[Lease, ...]:
        """Return these, and the leases to the same validators that follow them without a gap.

        A validator may be ahead of this miner's view of the chain: what holds now may be over
        there. What follows is left out where the two are more than a launch request takes.
        """
        after = {(lease.gpu_uuid, lease.validator_hotkey, lease.to_block + 1) for lease in leases}
        following = [
            lease
            for lease in self.current(min((lease.to_block for lease in leases), default=0))
            if (lease.gpu_uuid, lease.validator_hotkey, lease.from_block) in after
        ]
        fits = len(leases) + len(following) <= MAX_LAUNCH_LEASES
        return (*leases, *following) if fits else tuple(leases)

    def renew(
        self,
        *,
        block: int,
        gpus: Sequence[str],
        stakes: Mapping[str, int],
        busy: Mapping[str, str],
        eager: frozenset[str] = frozenset(),
    ) -> tuple[Lease, ...]:
        """Sign what is due and return it.

        Args:
            block: the finalized block now.
            gpus: the node's GPUs.
            stakes: validators that may be served, with their stake.
            busy: GPUs that run an instance, with its validator: they stay with it.
            eager: validators that want more than they have; idle GPUs that are due go to them.
        """
        last = {lease.gpu_uuid: lease for lease in self.current(block)}
        kept = {gpu: validator for gpu, validator in busy.items() if validator in stakes}
        due = [gpu for gpu in gpus if self._is_due(last.get(gpu), block, busy=gpu in kept)]
        pinned = kept | {gpu: last[gpu].validator_hotkey for gpu in gpus if gpu not in due}
        wanting = {v: stake for v, stake in stakes.items() if v in eager} or dict(stakes)
        shares = share_gpus(gpus, wanting, pinned, stakes)
        signed = [
            self._sign(
                gpu,
                shares[gpu],
                last.get(gpu),
                block,
                self._lease_blocks if gpu in kept else self._idle_blocks,
            )
            for gpu in due
            if gpu in shares
        ]
        if signed:
            self._store.forget_leases(before_block=block - _HISTORY_BLOCKS)
        return tuple(signed)

    def _is_due(self, last: Lease | None, block: int, *, busy: bool) -> bool:
        """Tell whether a GPU needs its next lease: early where an instance depends on it."""
        if last is None:
            return True
        length = self._lease_blocks if busy else last.to_block - last.from_block + 1
        return last.to_block - block < max(_LEAST_MARGIN_BLOCKS, length // 4)

    def _sign(self, gpu: str, validator: str, last: Lease | None, block: int, blocks: int) -> Lease:
        earliest = last.to_block + 1 if last else self._after_history(gpu)
        start = max(earliest, block - _BACKDATED_BLOCKS, 0)
        lease = Lease.sign(
            self._keypair,
            gpu_uuid=gpu,
            validator_hotkey=validator,
            from_block=start,
            to_block=max(start, block) + blocks - 1,
        )
        self._store.add_lease(lease)
        logger.bind(gpu=gpu, validator=validator, from_block=start, to_block=lease.to_block).info(
            "lease was signed"
        )
        return lease

    def _after_history(self, gpu: str) -> int:
        ends = [
            lease.to_block
            for lease in self._store.leases(miner_hotkey=self._keypair.ss58_address)
            if lease.gpu_uuid == gpu
        ]
        return max(ends, default=-1) + 1
