"""Deposits on their way back: asked for by the account, paid by the signer, reported here.

Path: API -> request -> (spool) -> signer -> outbox -> chain -> (spool) -> take -> ledger.
Invariants: a deposit is asked back once, after its own lock; the role goes in the transaction of
the request; a report that comes twice, late or out of order changes nothing twice; what failed is
held again. This process holds no key: it can only name what the signer may pay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bittensor_core import ss58_decode, ss58_encode
from loguru import logger

from chutes_core.base import ids
from chutes_core.base.clock import Clock
from chutes_core.base.errors import ChutesError, Conflict, Invalid, NotFound
from chutes_core.base.units import format_tao
from chutes_core.validator.billing.roles import DepositTerms, missing_rao, review_deposits
from chutes_core.validator.domain.accounts import Account
from chutes_core.validator.domain.deposits import Deposit, DepositState, Refund, RefundState
from chutes_core.validator.domain.money import (
    FAILED_REFUNDS,
    Entry,
    Posting,
    refund_flow,
    refund_rest,
    user_deposit,
)
from chutes_core.validator.store.database import Store

EXISTENTIAL_DEPOSIT_RAO = 500
"""Stays at the address (Balances.ExistentialDeposit of the runtime): an account that is reaped
starts again at nonce 0, where an old signature could be played once more."""
_SS58_FORMAT = 42

FeeQuote = Callable[[], int]


@dataclass(frozen=True)
class RefundOrder:
    """What the signer is told: pay from the deposit address of account ``number``."""

    refund_id: str
    number: int
    deposit_address: str
    destination_ss58: str
    amount_rao: int


@dataclass(frozen=True)
class RefundReport:
    """What the signer tells: ``waiting`` and ``died`` leave the refund to be tried again."""

    refund_id: str
    outcome: Literal["waiting", "submitted", "died", "finalized", "failed"]
    extrinsic_hash: str = ""
    paid_rao: int = 0
    fee_rao: int = 0
    block_number: int | None = None
    reason: str = ""


class Refunds:
    """Refunds of developer deposits.

    Args:
        store: deposits, refunds, roles, ledger.
        clock: locks are compared with it.
        terms: what makes a developer.
        fee_rao: what a transfer costs now; raises a ChutesError where nobody can tell, and then
            the signer decides.
    """

    def __init__(
        self, store: Store, clock: Clock, terms: DepositTerms, *, fee_rao: FeeQuote
    ) -> None:
        self._store = store
        self._clock = clock
        self._terms = terms
        self._fee_rao = fee_rao

    def request(
        self,
        account: Account,
        *,
        deposit_ids: Sequence[str] | None = None,
        address: str | None = None,
    ) -> Refund:
        """Ask deposits back; the caller has proven that the account's hotkey asks.

        Args:
            account: whose deposits.
            deposit_ids: which; None takes all that are unlocked.
            address: where to; None takes the account's proven coldkey.

        Raises:
            NotFound: ``no_such_deposit``, also for another account's.
            Conflict: ``no_deposit``, ``deposit_locked``, ``already_requested``,
                ``already_refunded``, ``coldkey_not_proven``, ``deposit_spent``.
            Invalid: ``bad_address`` or ``fee_exceeds_deposit``.
        """
        to = self._destination(account, address)
        fee_rao = self._quote()
        now_s = self._clock.now_s()
        with self._store.transaction(durable=True):
            chosen = self._chosen(account.user_id, deposit_ids, now_s)
            amount_rao = sum(deposit.rao for deposit in chosen)
            if amount_rao <= fee_rao + EXISTENTIAL_DEPOSIT_RAO:
                raise Invalid(
                    "fee_exceeds_deposit",
                    f"{format_tao(amount_rao)} TAO do not cover the chain's fee",
                    hint="top the deposit up and ask for all of it at once",
                    fee_rao=fee_rao,
                )
            self._check_there(account.user_id, amount_rao, now_s)
            refund = Refund(ids.new_id(), account.user_id, to, amount_rao, now_s, now_s)
            self._store.refunds.insert(refund)
            for deposit in chosen:
                self._store.deposits.move(
                    deposit, DepositState.REQUESTED, refund_id=refund.refund_id
                )
            review_deposits(self._store, self._terms, account.user_id, now_s)
        logger.bind(refund=refund.refund_id, rao=amount_rao).info("Refund requested")
        return refund

    def get(self, account: Account, refund_id: str) -> Refund:
        """Return one refund of an account.

        Raises:
            NotFound: ``no_such_refund``.
        """
        refund = self._store.refunds.get(refund_id)
        if refund is None or refund.user_id != account.user_id:
            raise NotFound("no_such_refund", "there is no such refund")
        return refund

    def orders(self) -> tuple[RefundOrder, ...]:
        """Return what the signer has to pay, oldest first."""
        orders = []
        for refund in self._store.refunds.open():
            account = self._store.accounts.get(refund.user_id)
            assert account is not None, "a refund references its account"
            orders.append(
                RefundOrder(
                    refund.refund_id,
                    account.number,
                    account.deposit_address,
                    refund.destination_ss58,
                    refund.amount_rao,
                )
            )
        return tuple(orders)

    def take(self, report: RefundReport) -> bool:
        """Apply a report of the signer; False where it changes nothing."""
        with self._store.transaction(durable=True):
            refund = self._store.refunds.get(report.refund_id)
            if refund is None or refund.state in (RefundState.FINALIZED, RefundState.FAILED):
                return False
            if report.outcome == "waiting":
                return self._store.refunds.note(refund.refund_id, report.reason)
            if report.outcome == "died":
                return self._died(refund, report)
            changed = self._submitted(refund, report)
            if report.outcome != "submitted":
                self._end(report)
                changed = True
        if report.outcome in ("finalized", "failed"):
            log = logger.bind(refund=report.refund_id, extrinsic=report.extrinsic_hash)
            log.info("Refund {}", report.outcome)
        return changed

    def _died(self, refund: Refund, report: RefundReport) -> bool:
        if (refund.state, refund.extrinsic_hash) != (RefundState.SUBMITTED, report.extrinsic_hash):
            return False
        after = self._moved(refund, RefundState.REQUESTED, report)
        self._store.refunds.move(refund, replace(after, extrinsic_hash=""))
        return True

    def _submitted(self, refund: Refund, report: RefundReport) -> bool:
        """Make the refund submitted with the report's extrinsic, from whatever it was."""
        if not report.extrinsic_hash:
            return False  # it failed before anything was signed
        if refund.state is RefundState.SUBMITTED:
            if refund.extrinsic_hash == report.extrinsic_hash:
                return False
            again = replace(refund, state=RefundState.REQUESTED, extrinsic_hash="")
            self._store.refunds.move(refund, again)
            refund = again
        self._store.refunds.move(refund, self._moved(refund, RefundState.SUBMITTED, report))
        return True

    def _end(self, report: RefundReport) -> None:
        refund = self._store.refunds.get(report.refund_id)
        assert refund is not None
        paid = report.outcome == "finalized"
        state = RefundState.FINALIZED if paid else RefundState.FAILED
        now_s = self._clock.now_s()
        self._store.refunds.move(refund, self._moved(refund, state, report))
        for deposit in self._store.deposits.of_refund(refund.refund_id):
            if paid:
                self._store.deposits.move(
                    deposit, DepositState.REFUNDED, refund_id=refund.refund_id
                )
            else:
                self._store.deposits.move(deposit, DepositState.HELD, refund_id="")
        for entry in _entries(refund, report, now_s):
            self._store.ledger.apply(entry)
        review_deposits(self._store, self._terms, refund.user_id, now_s)

    def _moved(self, refund: Refund, state: RefundState, report: RefundReport) -> Refund:
        return replace(
            refund,
            state=state,
            updated_at_s=self._clock.now_s(),
            extrinsic_hash=report.extrinsic_hash,
            paid_rao=report.paid_rao,
            fee_rao=report.fee_rao,
            block_number=report.block_number,
            reason=report.reason,
        )

    def _destination(self, account: Account, address: str | None) -> str:
        if address is None:
            if not account.coldkey_proven:
                raise Conflict(
                    "coldkey_not_proven",
                    "the account's coldkey is a claim; nothing is paid to it",
                    hint="prove it (chutes link --coldkey), or name another address",
                )
            return account.coldkey_ss58
        if not is_address(address) or self._store.accounts.by_deposit_address(address) is not None:
            raise Invalid(
                "bad_address",
                "the address is no SS58 address of this chain, or is a deposit address",
                hint="an address of a wallet begins with 5 and has 48 characters",
            )
        return address

    def _quote(self) -> int:
        try:
            return self._fee_rao()
        except ChutesError as error:
            logger.bind(code=error.code).warning("The chain's fee is not known")
            return 0

    def _chosen(
        self, user_id: str, deposit_ids: Sequence[str] | None, now_s: int
    ) -> tuple[Deposit, ...]:
        if deposit_ids is not None:
            named = tuple(dict.fromkeys(deposit_ids))
            return tuple(self._named(user_id, deposit_id, now_s) for deposit_id in named)
        deposits = self._store.deposits.of_user(user_id)
        held = [d for d in deposits if d.state is DepositState.HELD]
        unlocked = tuple(d for d in held if d.unlocks_at_s <= now_s)
        if unlocked:
            return unlocked
        if held:
            raise _locked(min(held, key=lambda d: d.unlocks_at_s), now_s)
        if any(d.state is DepositState.REQUESTED for d in deposits):
            raise _already("requested")
        if deposits:
            raise _already("refunded")
        raise Conflict("no_deposit", "the account has no deposit")

    def _named(self, user_id: str, deposit_id: str, now_s: int) -> Deposit:
        deposit = self._store.deposits.get(deposit_id)
        if deposit is None or deposit.user_id != user_id:
            raise NotFound("no_such_deposit", "the account has no such deposit")
        if deposit.state is not DepositState.HELD:
            raise _already(deposit.state.value)
        if deposit.unlocks_at_s > now_s:
            raise _locked(deposit, now_s)
        return deposit

    def _check_there(self, user_id: str, amount_rao: int, now_s: int) -> None:
        """Refuse to pay a deposit whose money has left its address without a refund of ours."""
        unlocked = sum(
            d.rao
            for d in self._store.deposits.of_user(user_id)
            if d.state is DepositState.HELD and d.unlocks_at_s <= now_s
        )
        missing = missing_rao(self._store, user_id)
        if amount_rao > unlocked - missing:
            raise Conflict(
                "deposit_spent",
                f"{format_tao(missing)} TAO have left the deposit address already",
                hint="ask the validator's operator; a refund may predate a restored backup",
                missing_rao=missing,
            )


def is_address(text: str) -> bool:
    """Tell whether a text is an SS58 address in this chain's own format."""
    try:
        return bool(ss58_encode(bytes(ss58_decode(text)), _SS58_FORMAT) == text)
    except ValueError:
        return False


def _entries(refund: Refund, report: RefundReport, now_s: int) -> tuple[Entry, ...]:
    flow = refund_flow(refund.user_id)
    if report.outcome == "finalized":
        left_rao = report.paid_rao + report.fee_rao
        rest_rao = refund.amount_rao - left_rao
        postings = (
            Posting(user_deposit(refund.user_id), -refund.amount_rao),
            Posting(flow, left_rao),
            Posting(refund_rest(refund.user_id), rest_rao),
        )
        return (Entry(f"refund:{refund.refund_id}", "refund", now_s, postings),)
    if report.fee_rao:
        lost = (Posting(FAILED_REFUNDS, -report.fee_rao), Posting(flow, report.fee_rao))
        return (Entry(f"refund-failed:{report.extrinsic_hash}", "refund_failed", now_s, lost),)
    return ()


def _already(state: str) -> Conflict:
    code = "already_requested" if state == "requested" else "already_refunded"
    return Conflict(code, f"the deposit is {state} already", hint="chutes refund --list shows it")


def _locked(deposit: Deposit, now_s: int) -> Conflict:
    return Conflict(
        "deposit_locked",
        "the deposit is still locked",
        hint=f"it can be asked back in {deposit.unlocks_at_s - now_s} seconds",
        unlocks_at_s=deposit.unlocks_at_s,
    )
