"""The validator's end of the spool: takes the signer's reports, writes what there is to pay.

Called by a loop of the validator. Invariant: reports are taken before orders are removed, and both
steps can be repeated at any point.
"""

import os
from pathlib import Path
from typing import Literal, cast

from chutes_core.validator.billing.refunds import RefundReport, Refunds
from chutes_core.validator.signer.spool import Order, Report, Spool

Outcome = Literal["waiting", "submitted", "died", "finalized", "failed"]


class Desk:
    """Exchanges orders and reports with the signer.

    Args:
        refunds: what is asked back.
        folder: the spool, owned by this process's user.
        signer_uid: whose reports count.
    """

    def __init__(self, refunds: Refunds, folder: Path, *, signer_uid: int) -> None:
        self._refunds = refunds
        self._orders = Spool(folder / "orders", owner_uid=os.getuid())
        self._reports = Spool(folder / "reports", owner_uid=signer_uid)

    def run_once(self) -> int:
        """Take reports and write orders; return how many reports changed something.

        Raises:
            Forbidden: ``spool_not_private``.
        """
        self._orders.prepare()
        changed = sum(self._refunds.take(_taken(report)) for report in self._reports.reports())
        open_orders = self._refunds.orders()
        for order in open_orders:
            spooled = Order(
                refund_id=order.refund_id,
                number=order.number,
                deposit_address=order.deposit_address,
                destination_ss58=order.destination_ss58,
                amount_rao=order.amount_rao,
            )
            self._orders.write(order.refund_id, spooled)
        self._orders.keep_only({order.refund_id for order in open_orders})
        return changed


def _taken(report: Report) -> RefundReport:
    return RefundReport(
        refund_id=report.refund_id,
        outcome=cast(Outcome, report.outcome),
        extrinsic_hash=report.extrinsic_hash,
        paid_rao=report.paid_rao,
        fee_rao=report.fee_rao,
        block_number=report.block_number,
        reason=report.reason,
    )
