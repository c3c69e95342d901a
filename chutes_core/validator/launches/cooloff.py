"""A miner whose launches of a chute never listen waits before it takes the chute's place again.

A launch that is requested holds one of the places that the chute's demand asks for, up to its
listening deadline, which has to leave room for the image's transfer. So who held a place in vain
may not take one of that chute for as long as it held it, and for twice as long each further time.
All of it follows from the launches in the store: a restart forgets nothing.

Path: service (a request) -> here -> store.launches. Invariant: of a day, a miner holds a chute's
place in vain for half of the time at most, and ever less the more often it does.
"""

from collections.abc import Sequence

from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.launches import Launch, Reason
from chutes_core.validator.store.launches import LaunchRows

LOOK_BACK_S = 86_400
MAX_COOL_OFF_S = 4 * 3600
LOOKED_AT = 16
"""Launches of a miner and a chute that are looked at; as many doublings reach the most."""
_OURS = frozenset(
    {
        Reason.VALIDATOR_RESTARTED,
        Reason.CHUTE_DELETED,
        Reason.SUPERSEDED,
        Reason.NOT_DEVELOPER,
    }
)
"""Ends that the miner has no part in."""


def check_cool_off(rows: LaunchRows, miner_hotkey: str, chute_id: str, now_s: int) -> None:
    """Refuse a chute to a miner whose launches of it ended without having listened.

    Raises:
        Conflict: ``cooling_off``.
    """
    last = rows.last_of(miner_hotkey, chute_id, since_s=now_s - LOOK_BACK_S, limit=LOOKED_AT)
    until_s = cool_off_until_s(last)
    if now_s < until_s:
        raise Conflict(
            "cooling_off",
            f"your last launches of this chute held its place and never listened, until {until_s}",
            hint="look at the miner's log of that launch; other chutes may be launched at once",
        )


def cool_off_until_s(newest_first: Sequence[Launch]) -> int:
    """Return until when a miner leaves a chute alone; 0 where its last launch of it listened.

    Args:
        newest_first: the miner's launches of the chute that have ended.
    """
    silent: list[tuple[int, int]] = []
    for launch in newest_first:
        if launch.instance_public_key:
            break
        if launch.reason not in _OURS and launch.gone_at_s is not None:
            silent.append((launch.requested_at_s, launch.gone_at_s))
    if not silent:
        return 0
    requested_s, gone_s = silent[0]
    return gone_s + min((gone_s - requested_s) << (len(silent) - 1), MAX_COOL_OFF_S)
