"""Developer deposits and their refunds: records, states, and which state may follow which.

Invariant: a deposit is in exactly one place: held here, asked back by one refund, or refunded; its
lock ends seven days after its own block, whatever else arrives; a refund that ended never changes.
"""

from dataclasses import dataclass
from enum import Enum

DAY_S = 86_400
LOCK_S = 7 * DAY_S
NOTICE_S = DAY_S
"""Running chutes of an account that is no developer any more are drained after this notice."""


class DepositState(str, Enum):
    """Where a deposit is."""

    HELD = "held"
    REQUESTED = "requested"
    REFUNDED = "refunded"


DEPOSIT_NEXT: dict[DepositState, frozenset[DepositState]] = {
    DepositState.HELD: frozenset({DepositState.REQUESTED}),
    DepositState.REQUESTED: frozenset({DepositState.HELD, DepositState.REFUNDED}),
    DepositState.REFUNDED: frozenset(),
}


class RefundState(str, Enum):
    """How far a refund is; an extrinsic that died makes it requested again."""

    REQUESTED = "requested"
    SUBMITTED = "submitted"
    FINALIZED = "finalized"
    FAILED = "failed"


REFUND_NEXT: dict[RefundState, frozenset[RefundState]] = {
    RefundState.REQUESTED: frozenset({RefundState.SUBMITTED, RefundState.FAILED}),
    RefundState.SUBMITTED: frozenset(
        {RefundState.REQUESTED, RefundState.FINALIZED, RefundState.FAILED}
    ),
    RefundState.FINALIZED: frozenset(),
    RefundState.FAILED: frozenset(),
}


@dataclass(frozen=True)
class Deposit:
    """One transfer to an account's deposit address; times are the block's own, in seconds."""

    deposit_id: str
    user_id: str
    rao: int
    source_ss58: str
    block_number: int
    block_hash: str
    at_s: int
    unlocks_at_s: int
    state: DepositState = DepositState.HELD
    refund_id: str = ""


@dataclass(frozen=True)
class Refund:
    """Deposits on their way back. ``amount_rao`` is their sum; the chain's fee comes off it."""

    refund_id: str
    user_id: str
    destination_ss58: str
    amount_rao: int
    requested_at_s: int
    updated_at_s: int
    state: RefundState = RefundState.REQUESTED
    extrinsic_hash: str = ""
    paid_rao: int = 0
    fee_rao: int = 0
    block_number: int | None = None
    reason: str = ""
