"""Money and time in integers. Invariant: no amount of TAO is ever a float.

1 TAO = 10^9 rao (the chain's smallest unit, as in the runtime's Balances pallet).
"""

from decimal import Decimal, InvalidOperation
from typing import NewType

from chutes_core.base.errors import Invalid

Rao = NewType("Rao", int)

RAO_PER_TAO = 1_000_000_000
USD_MICROS_PER_USD = 1_000_000
MICROSECONDS_PER_HOUR = 3_600_000_000


def parse_tao(text: str) -> Rao:
    """Read a decimal number of TAO into rao, exactly.

    >>> parse_tao("1.5")
    1500000000

    Raises:
        Invalid: not a plain decimal number, negative, or finer than one rao.
    """
    try:
        rao = Decimal(text) * RAO_PER_TAO
    except InvalidOperation as error:
        raise Invalid("bad_tao", f"{text!r} is not a number of TAO", hint="e.g. 1.5") from error
    if not rao.is_finite() or rao < 0 or rao != rao.to_integral_value():
        raise Invalid(
            "bad_tao", f"{text!r} is not a whole number of rao", hint="at most 9 decimals"
        )
    return Rao(int(rao))


def format_tao(rao: int) -> str:
    """Show rao as TAO with nine decimals.

    >>> format_tao(1_500_000_000)
    '1.500000000'
    """
    sign = "-" if rao < 0 else ""
    whole, part = divmod(abs(rao), RAO_PER_TAO)
    return f"{sign}{whole}.{part:09d}"


def ceil_div(numerator: int, denominator: int) -> int:
    """Divide non-negative integers, rounding up: a charge is never below its cost.

    >>> ceil_div(7, 2)
    4
    """
    return -(-numerator // denominator)
