"""From demand to the wanted number of instances: a pure function, first form.

A chute wants one instance while it is hot (called or deployed within its shutdown time), one more
while its instances are busier than its threshold, up to its maximum. Invariant: the same inputs
always give the same answer, and it is never above max_instances.
"""

from dataclasses import dataclass

from chutes_core.base.units import ceil_div
from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.demand import ChuteDemand


@dataclass(frozen=True)
class Load:
    """What a chute has now: active instances, and launches that are still on their way."""

    active: int = 0
    coming: int = 0


def target(chute: Chute, demand: ChuteDemand, load: Load, *, now_s: int) -> int:
    """Return how many instances a chute should have.

    Args:
        chute: its current version; a deleted one wants none.
        demand: callers now and lately.
        load: what there is already.
        now_s: Unix time in seconds.
    """
    if chute.deleted_at_s is not None:
        return 0
    hot_since_s = max(chute.updated_at_s, demand.last_call_s)
    callers = demand.in_flight + demand.waiting
    if callers == 0 and now_s - hot_since_s >= chute.shutdown_after_s:
        return 0
    # The share of the slots that may be taken before another instance is wanted.
    slots_percent = max(chute.concurrency * chute.scaling_threshold_percent, 1)
    for_callers = ceil_div(callers * 100, slots_percent) if load.active else 1
    return max(1, min(for_callers, chute.max_instances))
