"""Credit that one user gives another. Invariant: only what no running call holds can be given."""

from chutes_core.base import ids
from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict, Invalid, NotFound, PaymentRequired
from chutes_core.base.units import format_tao
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.money import Entry, Posting, user_credit
from chutes_core.validator.domain.spending import Spend, Spending
from chutes_core.validator.store.database import Store


class Gifts:
    """Transfers between users; ``spending`` holds them against the giver's running calls."""

    def __init__(self, store: Store, clock: Clock, spending: Spending) -> None:
        self._store = store
        self._clock = clock
        self._spending = spending

    def give(self, giver: Account, to: str, rao: int, *, key: str | None = None) -> Entry:
        """Move credit to another user (id or name); one ``key`` moves it once.

        Raises:
            Invalid: ``bad_amount`` or ``own_account``. NotFound: ``no_such_user``.
            PaymentRequired: ``insufficient_balance``. Conflict: ``key_reused``.
        """
        rows = self._store.accounts
        taker = rows.get(to) or rows.by_username(to)
        if taker is None:
            raise NotFound("no_such_user", f"there is no user {to[:200]}")
        if taker.user_id == giver.user_id:
            raise Invalid("own_account", "giver and taker are the same account")
        if not 0 < rao < 2**62:
            raise Invalid("bad_amount", "the amount is a positive number of TAO", hint="e.g. 0.5")
        entry = Entry(
            key=f"gift:{giver.user_id}:{key or ids.new_id()}",
            kind="transfer",
            at_s=self._clock.now_s(),
            postings=(
                Posting(user_credit(giver.user_id), -rao),
                Posting(user_credit(taker.user_id), rao),
            ),
        )
        with self._spending() as spend, self._store.transaction(durable=True):
            known = self._store.ledger.get(entry.key)
            if known is None:
                self._write(giver, entry, spend)
            elif known.postings != entry.postings:
                raise Conflict("key_reused", "this key named another transfer before")
        return known or entry

    def _write(self, giver: Account, entry: Entry, spend: Spend) -> None:
        rao, ledger = entry.postings[1].rao, self._store.ledger
        held_rao = spend.hold(giver.user_id, rao)
        free_rao = ledger.balance(user_credit(giver.user_id)) - held_rao
        if rao > free_rao:
            raise PaymentRequired(
                "insufficient_balance",
                f"{format_tao(max(0, free_rao))} TAO can be given",
                hint="running calls hold their price until they end",
            )
        ledger.apply(entry)
        spend.written(ledger.last_entry_id())
