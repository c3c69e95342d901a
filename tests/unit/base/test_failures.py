import pytest

from chutes_core.base import failures
from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Exhausted
from chutes_core.base.failures import FailedTries, network_of


def test_an_address_may_fail_its_burst_and_then_slowly():
    """`burst` failures pass, the next is refused, and one more passes after each `refill_ms`."""
    clock = ManualClock()
    tries = FailedTries(clock, burst=3, refill_ms=2000)
    for _ in range(3):
        tries.check("192.0.2.1")
        tries.count("192.0.2.1")
    with pytest.raises(Exhausted) as caught:
        tries.check("192.0.2.1")
    assert (caught.value.code, caught.value.retry_after_s) == ("too_many_failures", 2)
    with pytest.raises(Exhausted):
        tries.count("192.0.2.1")
    tries.count("192.0.2.2")
    clock.advance(2)
    tries.count("192.0.2.1")
    with pytest.raises(Exhausted):
        tries.check("192.0.2.1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        (None, "no address", True),
    ],
)
def test_who_counts_as_one_caller(one, other, same):
    """An IPv4 address, an IPv6 network of 64 bits; what is no address is one caller together."""
    assert (network_of(one) == network_of(other)) is same


def test_many_addresses_do_not_fill_the_memory(monkeypatch):
    """Above MAX_ADDRESSES full buckets are dropped first, then the oldest."""
    monkeypatch.setattr(failures, "MAX_ADDRESSES", 10)
    tries = FailedTries(ManualClock(), burst=1)
    for number in range(100):
        tries.count(f"192.0.2.{number}")
    assert len(tries._left_us) <= 10
    with pytest.raises(Exhausted):
        tries.check("192.0.2.99")
