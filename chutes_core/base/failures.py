"""How often an address may fail to prove who it is. Invariant: bounded memory, an injected clock.

One object counts for every door of a process (gateway, control plane, control calls), so that a
guesser gains nothing by changing doors. Who proves a key at once is never slowed down by it; where
a proof is costly to check (a signature), `check` comes first.
"""

import ipaddress

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Exhausted
from chutes_core.base.units import ceil_div

MAX_FAILURES = 200
REFILL_MS = 200
MAX_ADDRESSES = 10_000
_IPV6_PREFIX = 64  # what one subscriber usually holds


class FailedTries:
    """A token bucket for each address: ``burst`` failures at once, one more each ``refill_ms``."""

    def __init__(
        self, clock: Clock, *, burst: int = MAX_FAILURES, refill_ms: int = REFILL_MS
    ) -> None:
        self._clock = clock
        self._refill_us = refill_ms * 1_000
        self._full_us = burst * self._refill_us
        self._left_us: dict[str, tuple[int, int]] = {}

    def check(self, address: str | None) -> None:
        """Refuse an address that has failed too often.

        Raises:
            Exhausted: ``too_many_failures``, with the seconds until the next try.
        """
        missing_us = self._refill_us - self._left(network_of(address), self._clock.monotonic_us())
        if missing_us > 0:
            raise Exhausted(
                "too_many_failures",
                "too many failed authentications came from this address",
                hint="wait as long as Retry-After says, and check the key or the signer's clock",
                retry_after_s=ceil_div(missing_us, 1_000_000),
            )

    def count(self, address: str | None) -> None:
        """Count one failure.

        Raises:
            Exhausted: ``too_many_failures``: it is to be answered in place of the failure.
        """
        self.check(address)
        name, now_us = network_of(address), self._clock.monotonic_us()
        self._left_us[name] = (self._left(name, now_us) - self._refill_us, now_us)
        if len(self._left_us) > MAX_ADDRESSES:
            self._forget(now_us)

    def _left(self, name: str, now_us: int) -> int:
        left_us, at_us = self._left_us.get(name, (self._full_us, now_us))
        return min(self._full_us, left_us + now_us - at_us)

    def _forget(self, now_us: int) -> None:
        """Drop full buckets, and if need be the oldest half."""
        left = {n: v for n, v in self._left_us.items() if self._left(n, now_us) < self._full_us}
        while len(left) > MAX_ADDRESSES // 2:
            del left[next(iter(left))]
        self._left_us = left


def network_of(address: str | None) -> str:
    """Return what stands for one caller: an IPv4 address, or an IPv6 network of 64 bits.

    >>> network_of("2001:db8::1") == network_of("2001:db8::2")
    True
    """
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
