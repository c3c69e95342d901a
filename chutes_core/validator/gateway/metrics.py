"""The gateway's figures in Prometheus' text format (0.0.4), made when they are asked for.

Path: metering counts -> `Gateway.metrics`, or a worker's report and `Crew.metrics` ->
validator/metrics, on an address of its own. Invariant: a call costs two list increments and nothing
else; labels are outcomes and error codes, which are few, never a user, a chute or an instance.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

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

    def add(self, counts: Iterable[int], sum_us: int) -> None:
        """Count what another has counted."""
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
        self.sum_us += sum_us

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


@dataclass(frozen=True)
class Counts:
    """What a gateway has counted since its start, or several together.

    Attributes:
        outcomes: recorded calls by what came of them.
        refused: errors that callers were told, by code.
        durations, first_bytes: of calls, from dispatch.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    durations: Histogram = field(default_factory=Histogram)
    first_bytes: Histogram = field(default_factory=Histogram)

    def said(self) -> dict[str, Any]:
        """Return all of them as they stand in a worker's report."""
        times = ("durations", self.durations), ("first_bytes", self.first_bytes)
        said: dict[str, Any] = {"outcomes": self.outcomes, "refused": self.refused}
        return said | {name: (one.counts, one.sum_us) for name, one in times}

    def add(self, said: Mapping[str, Any]) -> None:
        """Count what another has said."""
        self.outcomes.update(said["outcomes"])
        self.refused.update(said["refused"])
        self.durations.add(*said["durations"])
        self.first_bytes.add(*said["first_bytes"])

    def lines(self) -> Iterable[str]:
        """Yield the lines of all of them."""
        yield from counter_lines("calls", "outcome", self.outcomes)
        yield from counter_lines("refused", "code", self.refused)
        yield from self.durations.lines("call_seconds")
        yield from self.first_bytes.lines("first_byte_seconds")


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
