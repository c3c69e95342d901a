"""From demand to the wanted number of instances: a pure function, first form.

A chute wants one instance while it is hot (called or deployed within its shutdown time), one more
while its instances are busier than its threshold, up to its maximum. Invariant: the same inputs
always give the same answer, and it is never above max_instances.
"""

from dataclasses import dataclass

from chutes_core.base.units import ceil_div
from chutes_core.validator.domain.chutes import Chute
from chutes_core.validator.domain.demand import ChuteDemand
from chutes_core.wire.control import MAX_BOUNTY

BOUNTY_STEP_S = 5


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


def bounty(demand: ChuteDemand, *, now_s: int) -> int:
    """Return how urgently a chute is wanted: one more each time its callers' wait has doubled.

    >>> [bounty(ChuteDemand(0, 0, 1, 100), now_s=100 + s) for s in (0, 5, 10, 20, 9999)]
    [1, 2, 3, 4, 8]
    """
    if not demand.waiting:
        return 0
    waited_s = max(0, now_s - (demand.waiting_since_s or now_s))
    return min(MAX_BOUNTY, 1 + (waited_s // BOUNTY_STEP_S).bit_length())
