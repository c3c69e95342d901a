"""Rows of the outbox: what was signed, and how it ended (chain.intents.OutboxStore).

Invariant: every write is durable before it returns; the schema itself allows one extrinsic in
flight per key and one that is in flight or done per intent, and never changes a closed one.
"""

import sqlite3

from chutes_core.base.errors import Conflict, Invalid
from chutes_core.chain.intents import OutboxItem, OutboxState
from chutes_core.validator.store.connection import Connection, Value


class OutboxRows:
    """Signed extrinsics by intent and by key."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def put(self, item: OutboxItem) -> None:
        """Store a signed extrinsic.

        Raises:
            Conflict: ``extrinsic_in_flight`` or ``intent_under_way``.
        """
        with self._db.transaction(durable=True):
            if self.open_of(item.key_ss58) is not None:
                raise Conflict("extrinsic_in_flight", "another extrinsic of this key is in flight")
            known = self.latest(item.intent_id)
            if known is not None and known.state is OutboxState.FINALIZED:
                raise Conflict("intent_under_way", f"{item.intent_id} is done already")
            self._db.insert("outbox", _row(item))

    def close(self, item: OutboxItem) -> bool:
        """Store how an open extrinsic ended; False where it was closed before."""
        changes: dict[str, Value] = {
            "state": item.state.value,
            "block_number": item.block_number,
            "block_hash": item.block_hash,
            "fee_rao": item.fee_rao,
            "error": item.error,
        }
        with self._db.transaction(durable=True):
            where = "extrinsic_hash=? AND state='signed'"
            return bool(self._db.update("outbox", changes, where, (item.extrinsic_hash,)))

    def latest(self, intent_id: str) -> OutboxItem | None:
        """Return the newest try of an intent, or None."""
        return _maybe(
            self._db.one(
                "SELECT * FROM outbox WHERE intent_id=? ORDER BY position DESC LIMIT 1",
                (intent_id,),
            )
        )

    def open_of(self, key_ss58: str) -> OutboxItem | None:
        """Return the extrinsic of a key that is in flight, or None."""
        return _maybe(
            self._db.one("SELECT * FROM outbox WHERE key_ss58=? AND state='signed'", (key_ss58,))
        )

    def next_nonce(self, key_ss58: str) -> int | None:
        """Return the nonce after the last that a block holds or that was accepted, else None."""
        row = self._db.one(
            "SELECT max(next) FROM (SELECT nonce + 1 AS next FROM outbox"
            " WHERE key_ss58=? AND state IN ('finalized', 'failed')"
            " UNION ALL SELECT nonce FROM accepted_nonces WHERE key_ss58=?)",
            (key_ss58, key_ss58),
        )
        return None if row is None or row[0] is None else int(row[0])

    def accept_nonce(self, key_ss58: str, nonce: int, *, reason: str, at_s: int) -> None:
        """Go on from a nonce that others' extrinsics of the key led to; an operator decides that.

        Raises:
            Conflict: ``extrinsic_in_flight``: its end is not known yet, so no nonce is.
            Invalid: ``nonce_used``: one of ours has it, or a later one.
        """
        with self._db.transaction(durable=True):
            if self.open_of(key_ss58) is not None:
                raise Conflict(
                    "extrinsic_in_flight",
                    "an extrinsic of this key is in flight",
                    hint="start the process that signs with it again, until it says how it ended",
                )
            expected = self.next_nonce(key_ss58) or 0
            if nonce <= expected:
                raise Invalid(
                    "nonce_used", f"the outbox itself goes on from {expected}; {nonce} is not ahead"
                )
            row: dict[str, Value] = {
                "key_ss58": key_ss58,
                "nonce": nonce,
                "at_s": at_s,
                "reason": reason,
            }
            self._db.insert("accepted_nonces", row)

    def open(self) -> tuple[OutboxItem, ...]:
        """Return everything that is in flight, oldest first."""
        rows = self._db.all("SELECT * FROM outbox WHERE state='signed' ORDER BY position")
        return tuple(map(_item, rows))

    def spent_since(self, at_s: int) -> int:
        """Return the rao of all money signed since then that is in flight or done."""
        return self._db.number(
            "SELECT sum(amount_rao) FROM outbox WHERE amount_rao > 0 AND created_at_s >= ?"
            " AND state IN ('signed', 'finalized')",
            (at_s,),
        )

    def all(self) -> tuple[OutboxItem, ...]:
        """Return every extrinsic, oldest first."""
        return tuple(map(_item, self._db.all("SELECT * FROM outbox ORDER BY position")))


def _row(item: OutboxItem) -> dict[str, Value]:
    return {
        "extrinsic_hash": item.extrinsic_hash,
        "intent_id": item.intent_id,
        "purpose": item.purpose,
        "amount_rao": item.amount_rao,
        "key_ss58": item.key_ss58,
        "nonce": item.nonce,
        "signed": item.signed,
        "era_from": item.era_from,
        "era_to": item.era_to,
        "created_at_s": item.created_at_s,
        "state": item.state.value,
        "block_number": item.block_number,
        "block_hash": item.block_hash,
        "fee_rao": item.fee_rao,
        "error": item.error,
    }


def _item(row: sqlite3.Row) -> OutboxItem:
    return OutboxItem(
        extrinsic_hash=row["extrinsic_hash"],
        intent_id=row["intent_id"],
        purpose=row["purpose"],
        amount_rao=row["amount_rao"],
        key_ss58=row["key_ss58"],
        nonce=row["nonce"],
        signed=row["signed"],
        era_from=row["era_from"],
        era_to=row["era_to"],
        created_at_s=row["created_at_s"],
        state=OutboxState(row["state"]),
        block_number=row["block_number"],
        block_hash=row["block_hash"],
        fee_rao=row["fee_rao"],
        error=row["error"],
    )


def _maybe(row: sqlite3.Row | None) -> OutboxItem | None:
    return None if row is None else _item(row)
