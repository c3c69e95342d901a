"""The gateway's figures in Prometheus' text format (0.0.4), made when they are asked for.

Path: metering counts -> `Gateway.metrics` -> validator/metrics, on an address of its own.
Invariant: a call costs two list increments and nothing else; labels are outcomes and error codes,
which are few, never a user, a chute or an instance.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping

PREFIX = "chutes_gateway_"
BOUNDS_US = tuple(
    round(seconds * 1_000_000)
    for seconds in (
        0.001,
        0.0025,
        0.005,
        0.01,
        0.025,
        0.05,
        0.1,
        0.25,
        0.5,
        1,
        2.5,
        5,
        10,
        30,
        60,
        300,
    )
)


class Histogram:
    """How often a time fell between which bounds, and the sum of all."""

    __slots__ = ("counts", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.sum_us = 0

    def observe(self, microseconds: int) -> None:
        """Count one time."""
        self.counts[bisect_left(BOUNDS_US, microseconds)] += 1
        self.sum_us += microseconds

    def lines(self, name: str) -> Iterable[str]:
        """Yield the histogram's lines; times are shown in seconds."""
        yield f"# TYPE {PREFIX}{name} histogram"
        below = 0
        for bound_us, count in zip(BOUNDS_US, self.counts, strict=False):
            below += count
            yield f'{PREFIX}{name}_bucket{{le="{bound_us / 1_000_000:g}"}} {below}'
        whole = sum(self.counts)
        yield f'{PREFIX}{name}_bucket{{le="+Inf"}} {whole}'
        yield f"{PREFIX}{name}_sum {self.sum_us / 1_000_000:.6f}"
        yield f"{PREFIX}{name}_count {whole}"


def counter_lines(name: str, label: str, counts: Mapping[str, int]) -> Iterable[str]:
    """Yield a counter by one label."""
    yield f"# TYPE {PREFIX}{name}_total counter"
    for value, count in sorted(counts.items()):
        yield f'{PREFIX}{name}_total{{{label}="{value}"}} {count}'


def gauge_lines(values: Mapping[str, float]) -> Iterable[str]:
    """Yield gauges without labels."""
    for name, value in values.items():
        yield f"# TYPE {PREFIX}{name} gauge"
        yield f"{PREFIX}{name} {value:g}"
