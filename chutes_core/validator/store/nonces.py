"""Replay protection that survives a restart (wire.signing.NonceStore).

Invariant: a pair is accepted once; it is forgotten only after the time until which a request that
bears it could still pass the freshness check.
"""

from chutes_core.base.clock import Clock
from chutes_core.validator.store.connection import Connection, Value

PRUNE_EVERY_S = 60


class NonceRows:
    """Accepted (hotkey, nonce) pairs until they expire."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._db = connection
        self._clock = clock
        self._pruned_at_s = 0

    def check_and_store(self, hotkey_ss58: str, nonce: str, expires_s: int) -> bool:
        """Record the pair and return True, or return False where it was recorded before."""
        now_s = self._clock.now_s()
        if now_s - self._pruned_at_s >= PRUNE_EVERY_S:
            self._pruned_at_s = now_s
            self.prune(now_s)
        row: dict[str, Value] = {
            "hotkey_ss58": hotkey_ss58,
            "nonce": nonce,
            "expires_s": expires_s,
        }
        return self._db.insert("nonces", row, known="keep")

    def prune(self, now_s: int) -> int:
        """Forget what expired before ``now_s`` and return how many pairs that were."""
        return self._db.change("DELETE FROM nonces WHERE expires_s < ?", (now_s,))
