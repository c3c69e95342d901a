"""Watches the coldkey that pays for the hotkey's calls: an empty one stops weights silently.

Called by a loop. Invariant: it only reads; a low balance is one log line with the code
``coldkey_balance_low`` each time that it gets worse or the process starts, and a problem with that
code in GET /health for as long as it lasts; the balance itself is a figure there.
"""

from typing import Protocol

from loguru import logger

from chutes_core.base.units import format_tao
from chutes_core.validator.health import Health

CODE = "coldkey_balance_low"
HINT = "send TAO to the coldkey that owns the hotkey; it pays for weights"
FIGURE = "coldkey_free_rao"


class Balances(Protocol):
    """The part of chain.client.ChainClient that reads balances."""

    def balance_rao(self, address_ss58: str) -> int:
        """Return a free balance at the finalized head."""
        ...


class FeeWatch:
    """One coldkey's free balance against what the operator wants to keep there."""

    def __init__(self, chain: Balances, coldkey_ss58: str, *, min_rao: int, health: Health) -> None:
        self._chain = chain
        self._coldkey_ss58 = coldkey_ss58
        self._min_rao = min_rao
        self._health = health
        self._told_rao: int | None = None
        self.balance_rao: int | None = None

    @property
    def low(self) -> bool:
        """Tell whether the last look found too little."""
        return self.balance_rao is not None and self.balance_rao < self._min_rao

    def run_once(self) -> None:
        """Look once.

        Raises:
            Unavailable: the chain cannot be read.
        """
        self.balance_rao = rao = self._chain.balance_rao(self._coldkey_ss58)
        self._health.figure(FIGURE, rao)
        if not self.low:
            self._told_rao = None
            self._health.clear("coldkey")
            return
        self._health.report("coldkey", CODE, HINT)
        if self._told_rao is None or rao <= self._told_rao // 2:
            self._told_rao = rao
            logger.bind(code=CODE, coldkey=self._coldkey_ss58, free=format_tao(rao)).error(
                "the coldkey that pays for weights is nearly empty; send TAO to it"
            )
