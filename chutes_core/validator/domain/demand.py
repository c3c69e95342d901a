"""How much a chute is asked for, as the gateway counts it and autoscale reads it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChuteDemand:
    """Callers of one chute: the last call's Unix time, calls in flight, callers in the queue."""

    last_call_s: int = 0
    in_flight: int = 0
    waiting: int = 0
