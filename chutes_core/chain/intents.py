"""What the outbox writes down: intents, signed extrinsics, their states, and the store's shape.

Beside chain/outbox, which sends; validator/store implements `OutboxStore`. Imports no chain
library. Invariant: a state changes along `OUTBOX_NEXT` only, and a closed extrinsic never changes.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class OutboxState(str, Enum):
    """What is known of a stored extrinsic."""

    SIGNED = "signed"
    FINALIZED = "finalized"
    FAILED = "failed"
    DEAD = "dead"


OUTBOX_NEXT: dict[OutboxState, frozenset[OutboxState]] = {
    OutboxState.SIGNED: frozenset({OutboxState.FINALIZED, OutboxState.FAILED, OutboxState.DEAD}),
    OutboxState.FINALIZED: frozenset(),
    OutboxState.FAILED: frozenset(),
    OutboxState.DEAD: frozenset(),
}


@dataclass(frozen=True)
class Intent:
    """What is meant, named once for all tries: ``refund:…``, ``weights:…``, ``sweep:…``.

    An intent with an ``amount_rao`` moves money: where the key's nonce is not the one that the
    store expects, nothing is signed; other intents only raise the alarm.
    """

    intent_id: str
    purpose: str
    amount_rao: int = 0


@dataclass(frozen=True)
class OutboxItem:
    """One signed extrinsic. It can only be in blocks ``era_from`` to ``era_to``, both included."""

    extrinsic_hash: str
    intent_id: str
    purpose: str
    amount_rao: int
    key_ss58: str
    nonce: int
    signed: bytes
    era_from: int
    era_to: int
    created_at_s: int
    state: OutboxState = OutboxState.SIGNED
    block_number: int | None = None
    block_hash: str = ""
    fee_rao: int = 0
    error: str = ""


class OutboxStore(Protocol):
    """Durable memory of the outbox; validator/store's `outbox` has this shape."""

    def put(self, item: OutboxItem) -> None:
        """Store a signed extrinsic, durably.

        Raises:
            Conflict: ``extrinsic_in_flight`` (another of the key is open) or ``intent_under_way``.
        """
        ...

    def close(self, item: OutboxItem) -> bool:
        """Store how an open extrinsic ended, durably; False where it was closed before."""
        ...

    def latest(self, intent_id: str) -> OutboxItem | None:
        """Return the newest try of an intent, or None."""
        ...

    def open_of(self, key_ss58: str) -> OutboxItem | None:
        """Return the extrinsic of a key that is in flight, or None."""
        ...

    def next_nonce(self, key_ss58: str) -> int | None:
        """Return the nonce after the last that a block holds, or None before the first."""
        ...
