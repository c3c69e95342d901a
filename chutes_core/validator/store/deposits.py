"""Rows of deposits and refunds.

Invariant: a state changes only from the one that the caller saw, and only along the tables of
domain/deposits; what ended never changes (triggers).
"""

import sqlite3

from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.deposits import (
    DEPOSIT_NEXT,
    REFUND_NEXT,
    Deposit,
    DepositState,
    Refund,
    RefundState,
)
from chutes_core.validator.store.connection import Connection, Value


class DepositRows:
    """Deposits by id and by account."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def insert(self, deposit: Deposit) -> bool:
        """Keep a deposit; False where it is known already."""
        return self._db.insert("deposits", _deposit_row(deposit), known="keep")

    def get(self, deposit_id: str) -> Deposit | None:
        """Return one deposit, or None."""
        row = self._db.one("SELECT * FROM deposits WHERE deposit_id=?", (deposit_id,))
        return None if row is None else _deposit(row)

    def of_user(self, user_id: str) -> tuple[Deposit, ...]:
        """Return an account's deposits, oldest first."""
        rows = self._db.all(
            "SELECT * FROM deposits WHERE user_id=? ORDER BY at_s, deposit_id", (user_id,)
        )
        return tuple(map(_deposit, rows))

    def of_refund(self, refund_id: str) -> tuple[Deposit, ...]:
        """Return the deposits that a refund returns."""
        rows = self._db.all(
            "SELECT * FROM deposits WHERE refund_id=? ORDER BY at_s, deposit_id", (refund_id,)
        )
        return tuple(map(_deposit, rows))

    def move(self, deposit: Deposit, state: DepositState, *, refund_id: str) -> None:
        """Change a deposit's state.

        Raises:
            Conflict: ``bad_transition``, or ``deposit_moved`` where another was faster.
        """
        if state not in DEPOSIT_NEXT[deposit.state]:
            raise Conflict(
                "bad_transition", f"a {deposit.state.value} deposit is not {state.value}"
            )
        changes: dict[str, Value] = {"state": state.value, "refund_id": refund_id}
        where = "deposit_id=? AND state=? AND refund_id=?"
        known = (deposit.deposit_id, deposit.state.value, deposit.refund_id)
        if not self._db.update("deposits", changes, where, known):
            raise Conflict("deposit_moved", "the deposit was asked back meanwhile")


class RefundRows:
    """Refunds by id and by account."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def insert(self, refund: Refund) -> None:
        """Keep a new refund."""
        self._db.insert("refunds", _refund_row(refund))

    def get(self, refund_id: str) -> Refund | None:
        """Return one refund, or None."""
        row = self._db.one("SELECT * FROM refunds WHERE refund_id=?", (refund_id,))
        return None if row is None else _refund(row)

    def of_user(self, user_id: str) -> tuple[Refund, ...]:
        """Return an account's refunds, newest first."""
        rows = self._db.all(
            "SELECT * FROM refunds WHERE user_id=? ORDER BY requested_at_s DESC, refund_id",
            (user_id,),
        )
        return tuple(map(_refund, rows))

    def open(self) -> tuple[Refund, ...]:
        """Return every refund that has not ended, oldest first."""
        rows = self._db.all(
            "SELECT * FROM refunds WHERE state IN ('requested', 'submitted')"
            " ORDER BY requested_at_s, refund_id"
        )
        return tuple(map(_refund, rows))

    def move(self, before: Refund, after: Refund) -> None:
        """Change a refund from the state that was seen.

        Raises:
            Conflict: ``bad_transition``, or ``refund_moved`` where another was faster.
        """
        if after.state not in REFUND_NEXT[before.state]:
            raise Conflict(
                "bad_transition", f"a {before.state.value} refund is not {after.state.value}"
            )
        row = _refund_row(after)
        changed = ("state", "updated_at_s", "extrinsic_hash", "paid_rao", "fee_rao")
        changes = {name: row[name] for name in (*changed, "block_number", "reason")}
        where = "refund_id=? AND state=?"
        if not self._db.update("refunds", changes, where, (before.refund_id, before.state.value)):
            raise Conflict("refund_moved", "the refund has moved on meanwhile")

    def note(self, refund_id: str, reason: str) -> bool:
        """Say why an open refund waits; False where that was said already."""
        where = "refund_id=? AND reason<>? AND state IN ('requested', 'submitted')"
        return bool(self._db.update("refunds", {"reason": reason}, where, (refund_id, reason)))


def _deposit_row(deposit: Deposit) -> dict[str, Value]:
    return {
        "deposit_id": deposit.deposit_id,
        "user_id": deposit.user_id,
        "rao": deposit.rao,
        "source_ss58": deposit.source_ss58,
        "block_number": deposit.block_number,
        "block_hash": deposit.block_hash,
        "at_s": deposit.at_s,
        "unlocks_at_s": deposit.unlocks_at_s,
        "state": deposit.state.value,
        "refund_id": deposit.refund_id,
    }


def _deposit(row: sqlite3.Row) -> Deposit:
    return Deposit(
        deposit_id=row["deposit_id"],
        user_id=row["user_id"],
        rao=row["rao"],
        source_ss58=row["source_ss58"],
        block_number=row["block_number"],
        block_hash=row["block_hash"],
        at_s=row["at_s"],
        unlocks_at_s=row["unlocks_at_s"],
        state=DepositState(row["state"]),
        refund_id=row["refund_id"],
    )


def _refund_row(refund: Refund) -> dict[str, Value]:
    return {
        "refund_id": refund.refund_id,
        "user_id": refund.user_id,
        "destination_ss58": refund.destination_ss58,
        "amount_rao": refund.amount_rao,
        "state": refund.state.value,
        "requested_at_s": refund.requested_at_s,
        "updated_at_s": refund.updated_at_s,
        "extrinsic_hash": refund.extrinsic_hash,
        "paid_rao": refund.paid_rao,
        "fee_rao": refund.fee_rao,
        "block_number": refund.block_number,
        "reason": refund.reason,
    }


def _refund(row: sqlite3.Row) -> Refund:
    return Refund(
        refund_id=row["refund_id"],
        user_id=row["user_id"],
        destination_ss58=row["destination_ss58"],
        amount_rao=row["amount_rao"],
        state=RefundState(row["state"]),
        requested_at_s=row["requested_at_s"],
        updated_at_s=row["updated_at_s"],
        extrinsic_hash=row["extrinsic_hash"],
        paid_rao=row["paid_rao"],
        fee_rao=row["fee_rao"],
        block_number=row["block_number"],
        reason=row["reason"],
    )
