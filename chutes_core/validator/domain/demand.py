"""How much a chute is asked for, as the gateway counts it and autoscale reads it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChuteDemand:
    """Callers of one chute: the last call's Unix time, calls in flight, callers in the queue.

    ``waiting_since_s`` is the Unix time since when somebody waits, also one after another with a
    short while between them; 0 while nobody does.
    """

    last_call_s: int = 0
    in_flight: int = 0
    waiting: int = 0
    waiting_since_s: int = 0
