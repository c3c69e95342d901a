"""Which instances of a chute's older versions may go now: a pure rule.

Path: keeper -> here -> drain. A new version's instances come up beside the old ones, which leave
one for one as those become active. Where no GPU is free for a new one, an old one makes room for
it after a grace time: the chute is slower or cold for the minutes of one start, and the version
that its owner deployed serves. Invariants: while a new version has not started anywhere and fails
to start, no old instance is given up for it; at most one at a time makes room.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chutes_core.validator.autoscale.wanted import Load
from chutes_core.validator.domain.launches import Launch, Reason

_DOES_NOT_START = frozenset((Reason.START_FAILED, Reason.START_DEADLINE, Reason.PROBE_FAILED))


@dataclass(frozen=True)
class Rollover:
    """What is known of a chute whose older versions still serve.

    Attributes:
        old: active instances of older versions, oldest first.
        fresh: what the current version has.
        wanted: how many instances the chute should have now.
        waited_s: since it was deployed, or since an old instance last made room.
        last_end: how the current version's last launch ended; None where none has.
    """

    old: Sequence[Launch]
    fresh: Load
    wanted: int
    waited_s: int
    last_end: Reason | None = None


def may_go(state: Rollover, *, grace_s: int) -> tuple[Launch, ...]:
    """Return the old instances to drain now."""
    old = tuple(state.old)
    if state.wanted == 0:
        return old
    if state.fresh.active:
        surplus = len(old) + state.fresh.active - state.wanted
        if surplus > 0:
            return old[:surplus]
    return old[:1] if _must_make_room(state, grace_s) else ()


def _must_make_room(state: Rollover, grace_s: int) -> bool:
    if state.fresh.coming or state.waited_s < grace_s:
        return False
    return state.fresh.active > 0 or state.last_end not in _DOES_NOT_START
