"""Extrinsics that wait for a block.

Per signer they are ordered by nonce; those that follow on from the account's nonce without a gap
are ready, later ones wait. Invariant: no extrinsic is lost silently: its watcher is told ready,
future, invalid, dropped, usurped, inBlock or finalized.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from chutes_core.devnet.extrinsics import Extrinsic, TransactionRefused

MAX_POOLED = 8_192
MAX_POOLED_PER_SIGNER = 512

Watcher = Callable[[Any], None]


@dataclass
class Pooled:
    """One waiting extrinsic.

    Args:
        order: position of arrival.
        expires: first block it is no longer valid in, None when immortal.
        watcher: is told of its fate, if anyone asked.
        held_until: first block that may include it, by a fault; 0 for any.
    """

    extrinsic: Extrinsic
    order: int
    expires: int | None
    watcher: Watcher | None
    held_until: float = 0

    def tell(self, status: Any) -> None:
        """Tell the watcher, if there is one."""
        if self.watcher is not None:
            self.watcher(status)


class Pool:
    """All waiting extrinsics."""

    def __init__(self) -> None:
        self._by_signer: dict[str, dict[int, Pooled]] = {}
        self._hashes: set[bytes] = set()
        self._order = count()

    def __len__(self) -> int:
        return len(self._hashes)

    def add(
        self, extrinsic: Extrinsic, *, expires: int | None, next_nonce: int, watcher: Watcher | None
    ) -> Pooled:
        """Take a checked extrinsic; ``next_nonce`` is the account's nonce in the best state.

        Raises:
            TransactionRefused: known already, priority too low, or no room.
        """
        if extrinsic.hash in self._hashes:
            raise TransactionRefused(
                1013, "Transaction is already imported", "0x" + extrinsic.hash.hex()
            )
        waiting = self._by_signer.setdefault(extrinsic.signer, {})
        rival = waiting.get(extrinsic.nonce)
        if rival is not None and extrinsic.tip <= rival.extrinsic.tip:
            raise TransactionRefused(
                1014,
                f"Priority is too low: ({rival.extrinsic.tip} vs {extrinsic.tip})",
                "The transaction has too low priority to replace another transaction already in "
                "the pool.",
            )
        if rival is None and (len(self) >= MAX_POOLED or len(waiting) >= MAX_POOLED_PER_SIGNER):
            raise TransactionRefused(
                1016, "Immediately Dropped", "The transaction couldn't enter the pool: it is full"
            )
        if rival is not None:
            self._hashes.discard(rival.extrinsic.hash)
            rival.tell({"usurped": "0x" + extrinsic.hash.hex()})
        pooled = Pooled(extrinsic, next(self._order), expires, watcher)
        waiting[extrinsic.nonce] = pooled
        self._hashes.add(extrinsic.hash)
        is_ready = extrinsic.nonce < self.next_index(extrinsic.signer, next_nonce)
        pooled.tell("ready" if is_ready else "future")
        return pooled

    def usurp(self, extrinsic: Extrinsic) -> None:
        """Put a fault's extrinsic in front of all, in place of one with its nonce."""
        waiting = self._by_signer.setdefault(extrinsic.signer, {})
        rival = waiting.get(extrinsic.nonce)
        if rival is not None:
            self._hashes.discard(rival.extrinsic.hash)
            rival.tell({"usurped": "0x" + extrinsic.hash.hex()})
        waiting[extrinsic.nonce] = Pooled(extrinsic, -1, None, None)
        self._hashes.add(extrinsic.hash)

    def restore(self, pooled: Pooled) -> None:
        """Take back an extrinsic whose block was retracted, unless its nonce is used again."""
        waiting = self._by_signer.setdefault(pooled.extrinsic.signer, {})
        if pooled.extrinsic.nonce in waiting:
            pooled.tell("dropped")
            return
        waiting[pooled.extrinsic.nonce] = pooled
        self._hashes.add(pooled.extrinsic.hash)
        pooled.tell("ready")

    def next_index(self, signer: str, nonce: int) -> int:
        """Return the first nonce from ``nonce`` on that no waiting extrinsic uses."""
        waiting = self._by_signer.get(signer, {})
        while nonce in waiting:
            nonce += 1
        return nonce

    def ready(self, nonce_of: Callable[[str], int]) -> Iterator[Pooled]:
        """Yield what can be included next, in order of arrival, nonces ascending per signer.

        Args:
            nonce_of: the account's nonce at that moment; asked again after each yield.
        """
        queues = sorted(
            (self._by_signer[signer][nonce].order, signer)
            for signer in list(self._by_signer)
            if (nonce := nonce_of(signer)) in self._by_signer[signer]
        )
        for _, signer in queues:
            while (pooled := self._by_signer.get(signer, {}).get(nonce_of(signer))) is not None:
                nonce = pooled.extrinsic.nonce
                yield pooled
                if nonce_of(signer) == nonce:  # it was not included; the rest must wait
                    break

    def remove(self, pooled: Pooled) -> None:
        """Forget an extrinsic, because it was included or became invalid."""
        waiting = self._by_signer.get(pooled.extrinsic.signer, {})
        if waiting.get(pooled.extrinsic.nonce) is pooled:
            del waiting[pooled.extrinsic.nonce]
            self._hashes.discard(pooled.extrinsic.hash)
        if not waiting:
            self._by_signer.pop(pooled.extrinsic.signer, None)

    def sweep(self, *, next_block: int, nonce_of: Callable[[str], int]) -> None:
        """Drop what can never be included: expired, or its nonce used by another."""
        for pooled in self.pending():
            expired = pooled.expires is not None and pooled.expires <= next_block
            if expired or pooled.extrinsic.nonce < nonce_of(pooled.extrinsic.signer):
                self.remove(pooled)
                pooled.tell("invalid")

    def pending(self) -> list[Pooled]:
        """Return all waiting extrinsics in order of arrival."""
        everything = [p for waiting in self._by_signer.values() for p in waiting.values()]
        return sorted(everything, key=lambda pooled: pooled.order)
