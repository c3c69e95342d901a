"""Pays refunds: from an account's own deposit address, once, within a daily cap.

Path: spool orders -> here -> chain/outbox -> spool reports. Invariants: it signs transfers from
soft children `/number` of the deposit treasury only, never more rao a day (24 hours back) than its
cap, counting what is in flight; an order is signed once, whatever is spooled or restarted (the
outbox knows it by its refund id); the existential deposit stays, so the nonce never starts again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bittensor_core import Keypair
from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChainError, Invalid, Unavailable
from chutes_core.chain.addresses import derive
from chutes_core.chain.client import ChainClient, composed, transfer_call
from chutes_core.chain.intents import Intent, OutboxItem, OutboxState
from chutes_core.chain.outbox import Outbox
from chutes_core.validator.signer.spool import Order, Report, Spool
from chutes_core.validator.store.database import Store

DAY_S = 86_400
EXISTENTIAL_DEPOSIT_RAO = 500
CAP_REACHED = "daily_cap"
_FEE_MARGIN_RAO = 16
"""Quotes leave the era's byte out, and the fee can rise before the block; with one percent more."""


@dataclass(frozen=True)
class SignerParts:
    """What a signer works with; ``child`` gives the key of an account's deposit address."""

    store: Store
    chain: ChainClient
    outbox: Outbox
    orders: Spool
    reports: Spool
    clock: Clock


class Signer:
    """One pass over the orders at a time.

    Args:
        parts: store, chain, spool.
        treasury_ss58: public key of the deposit treasury.
        child: number -> keypair of the soft child ``/number``.
        cap_rao: highest sum of a day.
    """

    def __init__(
        self,
        parts: SignerParts,
        *,
        treasury_ss58: str,
        child: Callable[[int], Keypair],
        cap_rao: int,
    ) -> None:
        self._parts = parts
        self._treasury_ss58 = treasury_ss58
        self._child = child
        self._cap_rao = cap_rao

    def run_once(self) -> None:
        """Move every order on by one step and report where it stands.

        Raises:
            Forbidden: ``spool_not_private``.
            Unavailable: the chain cannot be reached.
        """
        orders = self._parts.orders.orders()
        for order in orders:
            report = self._step(order)
            self._parts.reports.write(order.refund_id, report)
        self._parts.reports.keep_only({order.refund_id for order in orders})

    def _step(self, order: Order) -> Report:
        item = self._parts.store.outbox.latest(_intent_id(order))
        try:
            if item is None or item.state is OutboxState.DEAD:
                item = self._send(order)
            else:
                item = self._parts.outbox.look(item)
        except Invalid as error:
            return Report(refund_id=order.refund_id, outcome="failed", reason=error.code)
        except (ChainError, Unavailable) as error:
            logger.bind(refund=order.refund_id, code=error.code).warning("Refund waits")
            known = self._parts.store.outbox.latest(_intent_id(order))
            if known is not None and known.state is not OutboxState.DEAD:
                return _report(order, known, error.code)
            return Report(refund_id=order.refund_id, outcome="waiting", reason=error.code)
        return _report(order, item)

    def _send(self, order: Order) -> OutboxItem:
        child = self._child(order.number)
        own = derive(self._treasury_ss58, order.number)
        if not own == order.deposit_address == child.ss58_address:
            raise Invalid("wrong_address", "the order names an address that is not the account's")
        spent_rao = self._parts.store.outbox.spent_since(self._parts.clock.now_s() - DAY_S)
        if spent_rao + order.amount_rao > self._cap_rao:
            raise Unavailable(CAP_REACHED, "the signer's daily cap is reached")
        free_rao = self._parts.chain.balance_rao(child.ss58_address)
        fee_rao = self._parts.chain.transfer_fee_rao(
            child, order.destination_ss58, order.amount_rao
        )
        set_aside_rao = fee_rao + fee_rao // 100 + _FEE_MARGIN_RAO
        value_rao = min(order.amount_rao, free_rao - EXISTENTIAL_DEPOSIT_RAO) - set_aside_rao
        if value_rao < EXISTENTIAL_DEPOSIT_RAO:
            raise Invalid("fee_exceeds_deposit", "nothing would be left after the chain's fee")
        call = transfer_call(order.destination_ss58, value_rao)
        intent = Intent(_intent_id(order), f"refund {value_rao}", order.amount_rao)
        return self._parts.outbox.post(
            intent, composed(call), child, "pay a refund", hotkey_signed=False
        )


def _intent_id(order: Order) -> str:
    return f"refund:{order.refund_id}"


def _report(order: Order, item: OutboxItem, reason: str = "") -> Report:
    outcomes = {
        OutboxState.SIGNED: "submitted",
        OutboxState.DEAD: "died",
        OutboxState.FINALIZED: "finalized",
        OutboxState.FAILED: "failed",
    }
    paid = int(item.purpose.rpartition(" ")[2]) if item.state is OutboxState.FINALIZED else 0
    return Report(
        refund_id=order.refund_id,
        outcome=outcomes[item.state],
        extrinsic_hash=item.extrinsic_hash,
        paid_rao=paid,
        fee_rao=item.fee_rao,
        block_number=item.block_number,
        reason=(reason or item.error)[:500],
    )


def child_of(secret_uri: str) -> Callable[[int], Any]:
    """Return a function that gives the keypair of soft child ``/number`` of a secret URI.

    Raises:
        Invalid: ``bad_treasury_key``.
    """
    try:
        Keypair.create_from_uri(secret_uri)
    except ValueError as error:
        raise Invalid("bad_treasury_key", "the key file holds no secret URI or mnemonic") from error
    return lambda number: Keypair.create_from_uri(f"{secret_uri}/{number}")
