"""What a call of a chute costs: the cheapest admissible GPU, at today's TAO/USD.

Path: Money (Invocation -> rate -> ledger). Invariant: a Rate is named by its numbers, so equal ids
mean equal prices and a changed price is another rate. Prices: base/gpus.py; formula: shared/DESIGN,
section 5, Rates.
"""

import hashlib
from dataclasses import dataclass

from chutes_core.base.errors import Invalid
from chutes_core.base.units import Rao, ceil_div
from chutes_core.validator.domain.chutes import Selector
from chutes_core.validator.domain.money import Rate, rao_per_hour

_SECONDS_PER_HOUR = 3_600
_DEPLOY_FEE_HOURS = 3


@dataclass(frozen=True)
class Rates:
    """The validator's price list.

    Args:
        tao_usd_micros: price of one TAO in millionths of a US dollar.
        max_call_s: the longest call that the gateway lets run; its price is held before dispatch.
    """

    tao_usd_micros: int
    max_call_s: int

    def __post_init__(self) -> None:
        if self.tao_usd_micros <= 0 or self.max_call_s <= 0:
            raise Invalid("bad_rate", "the TAO price and the longest call must be positive")

    def usd_micros_per_hour(self, selector: Selector) -> int:
        """Return the price of one instance per hour in millionths of a US dollar.

        Raises:
            Invalid: ``no_gpu_fits``.
        """
        return selector.admissible()[0].usd_micros_per_hour * selector.gpu_count

    def rao_per_hour(self, selector: Selector) -> Rao:
        """Return the price of one instance per hour in rao.

        Raises:
            Invalid: ``no_gpu_fits``.
        """
        cheapest = selector.admissible()[0]
        return rao_per_hour(cheapest.usd_micros_per_hour, selector.gpu_count, self.tao_usd_micros)

    def of(self, selector: Selector) -> Rate:
        """Return the rate of calls of a chute with this selector.

        Raises:
            Invalid: ``no_gpu_fits``.
        """
        return self.for_seconds(selector, self.max_call_s)

    def for_seconds(self, selector: Selector, limit_s: int) -> Rate:
        """Return the rate of something that runs for ``limit_s`` at most; its hold covers that.

        Raises:
            Invalid: ``no_gpu_fits``.
        """
        price_rao = self.rao_per_hour(selector)
        hold_rao = ceil_div(price_rao * limit_s, _SECONDS_PER_HOUR)
        return Rate(_rate_id(price_rao, hold_rao), price_rao, hold_rao)

    def deploy_fee_rao(self, selector: Selector) -> Rao:
        """Return what deploying a new chute costs: three hours of one instance.

        The factor is the public price list's (shared/PUBLIC_API, GPU table).

        Raises:
            Invalid: ``no_gpu_fits``.
        """
        return Rao(_DEPLOY_FEE_HOURS * self.rao_per_hour(selector))


def _rate_id(price_rao: int, hold_rao: int) -> str:
    return hashlib.sha256(f"chutes-rate/1|{price_rao}|{hold_rao}".encode()).hexdigest()[:32]
