"""How long to leave a chute alone after a failure, by its reason.

Invariant: a failure is never retried at once, and repeated failures of one kind wait ever longer,
up to five minutes (half a minute where the reason passes by itself), so that a broken image or a
full validator costs little.
"""

from dataclasses import dataclass

from chutes_core.base.clock import Clock

_FIRST_S = 10.0
_SHORT = {  # these change by themselves within blocks or seconds
    "not_wanted": 2.0,
    "gpu_busy": 2.0,
    "no_lease": 2.0,
    "not_serving": 2.0,
    "not_admitted": 2.0,
    "peer_unreachable": 2.0,
    "peer_timeout": 2.0,
    "instance_stopped": 2.0,
}
_MAX_S = 300.0
_MAX_SHORT_S = 30.0


@dataclass
class _Entry:
    reason: str
    wait_s: float
    until_us: int


class BackOff:
    """Remembers failures per (validator, chute)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[tuple[str, str], _Entry] = {}

    def failed(self, validator_hotkey: str, chute_id: str, reason: str) -> float:
        """Note a failure; return the seconds until another try."""
        key = (validator_hotkey, chute_id)
        last = self._entries.get(key)
        most_s = _MAX_SHORT_S if reason in _SHORT else _MAX_S
        wait_s = _SHORT.get(reason, _FIRST_S)
        if last is not None and last.reason == reason:
            wait_s = min(most_s, last.wait_s * 2)
        until_us = self._clock.monotonic_us() + round(wait_s * 1e6)
        self._entries[key] = _Entry(reason, wait_s, until_us)
        return wait_s

    def succeeded(self, validator_hotkey: str, chute_id: str) -> None:
        """Forget the failures of a chute whose instance listens."""
        self._entries.pop((validator_hotkey, chute_id), None)

    def waiting(self) -> frozenset[tuple[str, str]]:
        """Return the (validator, chute id) pairs to leave alone now."""
        now_us = self._clock.monotonic_us()
        return frozenset(key for key, entry in self._entries.items() if entry.until_us > now_us)

    def entries(self) -> dict[tuple[str, str], tuple[str, float]]:
        """Return (validator, chute id) -> the reason and the seconds left, of those that wait."""
        now_us = self._clock.monotonic_us()
        return {
            key: (entry.reason, (entry.until_us - now_us) / 1e6)
            for key, entry in self._entries.items()
            if entry.until_us > now_us
        }
