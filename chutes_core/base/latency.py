"""Settings of the interpreter for a process that answers callers: short pauses before throughput.

Path: the validator's and a worker's entry call `favour_latency` once, before their loop runs, and
the validator `leave_alone` again once it has loaded all that it keeps. A call of the gateway leaves
next to nothing for the cycle collector, whose defaults look at the young objects every 700
allocations, and again and again at everything that the imports made; and a thread that computes
(settling, hashing) keeps the lock of the interpreter for 5 ms while the loop waits for it.
Invariant: nothing here changes what a program does, only when it pauses.
"""

import gc
import sys

YOUNG_OBJECTS = 10_000  # some 0.3 ms to look through
YOUNG_ROUNDS = 20
OLD_ROUNDS = 5  # what is left to look through is little (`leave_alone`)
SWITCH_S = 0.0005


def favour_latency() -> None:
    """Keep what is loaded now out of collections, collect less often, switch threads sooner."""
    leave_alone()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, OLD_ROUNDS)
    sys.setswitchinterval(SWITCH_S)


def leave_alone() -> None:
    """Keep what is loaded now out of collections, which takes a moment.

    The oldest objects are looked at only when a quarter as many have joined them. So what is kept
    for good (a chain's metadata is half a million objects) would let the cycles wait that callers
    who vanish leave behind.
    """
    gc.collect()
    gc.freeze()
