"""Reads the inputs of the score from the store: the WorkSource that the validator runs with.

The only part of scoring that touches the store; everything after it is pure.
"""

from chutes_core.validator.scoring.score import WINDOW_US, Work
from chutes_core.validator.scoring.window import work_of
from chutes_core.validator.store.database import Store


class StoredWork:
    """The work of the last seven days, as the store has it."""

    def __init__(self, store: Store, *, tao_usd_micros: int) -> None:
        self._store = store
        self._tao_usd_micros = tao_usd_micros

    def work(self, now_us: int, block: int, block_ms: int) -> Work:
        """Return spans, paid work and conflicts of one consistent moment."""
        from_us = now_us - WINDOW_US
        from_block = max(0, block - WINDOW_US // (block_ms * 1_000))
        store = self._store
        with store.transaction():
            return work_of(
                store.launches.active_spans(from_us, now_us),
                store.paid_work.since(from_us),
                coldkey_of_user={a.user_id: a.coldkey_ss58 for a in store.accounts.all()},
                conflicted=store.leases.conflicts(from_block, block),
                now_us=now_us,
                block=block,
                block_ms=block_ms,
                tao_usd_micros=self._tao_usd_micros,
            )
