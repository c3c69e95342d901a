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
        """Return spans and conflicts of one consistent moment, and the calls of the same time.

        The calls are read in pages, between which others use the store: a week of them takes long.
        One that is settled meanwhile may count in this epoch or in the next.
        """
        from_us = now_us - WINDOW_US
        from_block = max(0, block - WINDOW_US // (block_ms * 1_000))
        store = self._store
        with store.transaction():
            spans = store.launches.active_spans(from_us, now_us)
            coldkeys = {a.user_id: a.coldkey_ss58 for a in store.accounts.all()}
            conflicted = store.leases.conflicts(from_block, block)
        return work_of(
            spans,
            store.invocations.each_between(from_us, now_us),
            coldkey_of_user=coldkeys,
            conflicted=conflicted,
            now_us=now_us,
            block=block,
            block_ms=block_ms,
            tao_usd_micros=self._tao_usd_micros,
        )
