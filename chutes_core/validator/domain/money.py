"""Rates and double-entry records. Invariant: the postings of every entry sum to zero."""

from dataclasses import dataclass

from chutes_core.base.units import MICROSECONDS_PER_HOUR, RAO_PER_TAO, Rao, ceil_div


@dataclass(frozen=True)
class Rate:
    """What one call costs: instance time at a price per hour, fixed when the snapshot was made.

    ``hold_rao`` is set aside before dispatch and bounds the charge; ``rate_id`` names this exact
    price, so that billing prices an invocation by what was promised, not by today's table.
    """

    rate_id: str
    rao_per_hour: int
    hold_rao: int

    def charge_rao(self, usage_us: int) -> Rao:
        """Return the charge for ``usage_us`` microseconds: rounded up, never above the hold."""
        price = ceil_div(max(usage_us, 0) * self.rao_per_hour, MICROSECONDS_PER_HOUR)
        return Rao(min(price, self.hold_rao))


def rao_per_hour(usd_micros_per_hour: int, gpu_count: int, tao_usd_micros: int) -> Rao:
    """Convert a GPU price to rao per hour, rounded up.

    Args:
        usd_micros_per_hour: price of one GPU, in millionths of a US dollar.
        gpu_count: GPUs of one instance.
        tao_usd_micros: price of one TAO, in millionths of a US dollar.
    """
    return Rao(ceil_div(usd_micros_per_hour * gpu_count * RAO_PER_TAO, tao_usd_micros))


@dataclass(frozen=True)
class Posting:
    """One side of an entry: positive credits the ledger account, negative debits it."""

    account: str
    rao: int


@dataclass(frozen=True)
class Entry:
    """One movement of money; ``key`` makes it idempotent (applied once, whatever happens)."""

    key: str
    kind: str
    at_s: int
    postings: tuple[Posting, ...]

    def __post_init__(self) -> None:
        if sum(posting.rao for posting in self.postings) != 0:
            raise ValueError(f"entry {self.key} does not balance")


def user_credit(user_id: str) -> str:
    """Name the ledger account that holds a user's prepaid credit."""
    return f"user:{user_id}:credit"


def user_deposit(user_id: str) -> str:
    """Name the ledger account of what a user has deposited and not got back."""
    return f"user:{user_id}:deposit"


def chain_deposit(user_id: str) -> str:
    """Name the ledger account that mirrors a deposit address: minus what the chain has there."""
    return f"{CHAIN_DEPOSITS}{user_id}"


def refund_flow(user_id: str) -> str:
    """Name the account between chain and refunds: 0 once what left is explained by a refund.

    Below 0 with no refund under way, something left the deposit address that we know nothing of.
    """
    return f"refunds:{user_id}"


def refund_rest(user_id: str) -> str:
    """Name the account of what a refund left at its address (the existential deposit)."""
    return f"rest:{user_id}"


CHAIN_PAYMENTS = "chain:payments"
CHAIN_DEPOSITS = "chain:deposits:"
SWEPT = "treasury:payments"
FAILED_REFUNDS = "costs:failed-refunds"
REVENUE = "revenue:invocations"
