"""What the sum of an account's deposits is worth: the developer role, and notice of its end.

Between deposits, refunds and links: whoever changes what a role rests on calls `review` inside its
own transaction. Invariant: the role and what it rests on change in one commit; what left a deposit
address without a refund of ours counts as not there.
"""

from dataclasses import dataclass

from chutes_core.base.errors import Invalid
from chutes_core.validator.domain.accounts import DEVELOPER
from chutes_core.validator.domain.deposits import LOCK_S, NOTICE_S, DepositState
from chutes_core.validator.domain.money import refund_flow
from chutes_core.validator.domain.rights import BY_DEPOSIT, Notice
from chutes_core.validator.store.database import Store


@dataclass(frozen=True)
class DepositTerms:
    """What the operator asks of developers.

    Args:
        required_rao: sum of held deposits that makes a developer; 0 asks for none.
        enforced: only developers may build and deploy, and who stops being one gets notice.
        lock_s: seconds from a deposit's block until it can be asked back.
        notice_s: seconds from the loss of the role until running chutes drain.
    """

    required_rao: int
    enforced: bool = False
    lock_s: int = LOCK_S
    notice_s: int = NOTICE_S

    def __post_init__(self) -> None:
        if self.required_rao < 0 or self.lock_s < 0 or self.notice_s < 0:
            raise Invalid("bad_deposit_terms", "amounts and times of deposits are not negative")


def held_rao(store: Store, user_id: str) -> int:
    """Return what counts as deposited: held deposits, less what left without a refund of ours."""
    held = sum(d.rao for d in store.deposits.of_user(user_id) if d.state is DepositState.HELD)
    return max(0, held - missing_rao(store, user_id))


def missing_rao(store: Store, user_id: str) -> int:
    """Return what left an account's deposit address and no refund explains."""
    under_way = sum(r.amount_rao for r in store.refunds.open() if r.user_id == user_id)
    return max(0, -store.ledger.balance(refund_flow(user_id)) - under_way)


def review_deposits(store: Store, terms: DepositTerms, user_id: str, now_s: int) -> None:
    """Give or take the role that deposits give."""
    enough = terms.required_rao > 0 and held_rao(store, user_id) >= terms.required_rao
    roles = {DEVELOPER} if enough else set()
    settle_notice(
        store, terms, user_id, store.accounts.set_grants(user_id, BY_DEPOSIT, roles), now_s
    )


def settle_notice(
    store: Store, terms: DepositTerms, user_id: str, roles: frozenset[str], now_s: int
) -> None:
    """Give notice to an account that is no developer any more; withdraw it from one that is."""
    if DEVELOPER in roles:
        store.notices.withdraw(user_id)
    elif terms.enforced:
        reason = "the account is not a developer any more (deposit or link)"
        store.notices.give(Notice(user_id, now_s, now_s + terms.notice_s, reason))
