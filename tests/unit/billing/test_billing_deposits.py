"""Deposits and refunds: every special case has a clear answer."""

from dataclasses import dataclass, replace

import pytest
from bittensor_core import Keypair

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.validator.billing.deposits import Deposits
from chutes_core.validator.billing.payments import Payments
from chutes_core.validator.billing.refunds import RefundReport, Refunds
from chutes_core.validator.billing.roles import DepositTerms
from chutes_core.validator.domain.accounts import DEVELOPER, Account
from chutes_core.validator.domain.deposits import (
    DAY_S,
    DEPOSIT_NEXT,
    REFUND_NEXT,
    DepositState,
    RefundState,
)
from chutes_core.validator.domain.money import chain_deposit, refund_flow, user_deposit
from chutes_core.validator.store.database import Store

T0 = 1_700_000_000
NEEDED = 1_000_000
FEE = 100
COLD = Keypair.create_from_uri("//Cold").ss58_address
OTHER = Keypair.create_from_uri("//Other").ss58_address


@dataclass(frozen=True)
class FakeEvent:
    block_hash: str
    extrinsic_index: int
    event_index: int
    rao: int
    source_ss58: str = "exchange"
    destination_ss58: str = "dep-1"
    account_ss58: str = "dep-1"


@dataclass(frozen=True)
class FakeBlock:
    number: int
    transfers: tuple = ()
    losses: tuple = ()
    time_s: int | None = None
    hash: str = ""


class World:
    """A validator's money, blocks that come, and a signer that reports."""

    def __init__(self, path):
        self.clock = ManualClock(T0)
        self.store = Store(path, clock=self.clock)
        self.terms = DepositTerms(required_rao=NEEDED, enforced=True)
        self.number = 0
        for name in ("alice", "bob"):
            self.store.accounts.create(
                lambda n, name=name: Account(
                    name, n, name, f"h{n}", COLD, f"pay-{n}", f"dep-{n}", "0", 1
                )
            )
        self.store.accounts.prove_coldkey("alice", COLD, "signature")
        self.fee_rao = lambda: FEE
        self.wire()

    def wire(self):
        deposits = Deposits(self.store, self.clock, self.terms)
        self.payments = Payments(self.store, self.clock, deposits)
        self.deposits = deposits
        self.refunds = Refunds(self.store, self.clock, self.terms, fee_rao=lambda: self.fee_rao())

    def block(self, *transfers, losses=()):
        self.number += 1
        place = (f"0x{self.number:064x}", 1)
        events = tuple(FakeEvent(*place, i, *t) for i, t in enumerate(transfers))
        lost = tuple(FakeEvent(*place, 50 + i, rao) for i, rao in enumerate(losses))
        block = FakeBlock(self.number, events, lost, self.clock.now_s())
        self.payments.apply(block)
        return block

    def deposit(self, rao, source="exchange", to="dep-1"):
        return self.block((rao, source, to))

    def account(self, user_id="alice"):
        return self.store.accounts.get(user_id)

    def ask(self, user_id="alice", **request):
        return self.refunds.request(self.account(user_id), **request)

    def paid(self, refund, fee=FEE, rest=500):
        paid = refund.amount_rao - fee - rest
        self.block((paid, "dep-1", refund.destination_ss58), losses=(fee,))
        return RefundReport(refund.refund_id, "finalized", "0xaa", paid, fee, self.number)

    @property
    def is_developer(self):
        return DEVELOPER in self.account().roles

    def states(self):
        return [d.state.value for d in self.deposits.of("alice")]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "v.db")
    yield made
    assert made.store.ledger.total() == 0
    assert made.store.ledger.disagreements() == ()
    made.store.close()


def code_of(call, **arguments):
    with pytest.raises(ChutesError) as caught:
        call(**arguments)
    assert caught.value.hint or caught.value.code in ("no_deposit", "no_such_deposit")
    return caught.value.code


def test_an_exchange_may_pay_the_deposit(world):
    """The destination decides: whose wallet it came from does not matter."""
    world.deposit(NEEDED, source="an exchange")
    assert world.is_developer
    assert world.deposits.held_rao("alice") == NEEDED


def test_a_deposit_too_small_then_topped_up(world):
    """The sum counts; each part keeps its own lock."""
    world.deposit(NEEDED - 1)
    assert not world.is_developer
    world.clock.advance(5 * DAY_S)
    world.deposit(1)
    assert world.is_developer
    first, second = world.deposits.of("alice")
    assert (first.unlocks_at_s, second.unlocks_at_s) == (T0 + 7 * DAY_S, T0 + 12 * DAY_S)


def test_dust_of_a_stranger_restarts_nothing(world):
    """The old deposit is free on day seven, whoever sent dust on day six."""
    world.deposit(NEEDED)
    world.clock.advance(6 * DAY_S)
    world.deposit(1_000, source="stranger")
    world.clock.advance(DAY_S)
    assert world.ask().amount_rao == NEEDED
    assert world.states() == ["requested", "held"]


def test_two_deposits_five_days_apart_come_back_one_after_the_other(world):
    """By default a refund takes what is unlocked; the second follows five days later."""
    world.deposit(NEEDED)
    world.clock.advance(5 * DAY_S)
    world.deposit(NEEDED)
    world.clock.advance(2 * DAY_S)
    assert world.ask().amount_rao == NEEDED
    assert world.is_developer  # the second is held and large enough
    assert code_of(world.ask) == "deposit_locked"
    world.clock.advance(5 * DAY_S)
    assert world.ask().amount_rao == NEEDED
    assert not world.is_developer


def test_a_refund_on_day_six_is_locked(world):
    """The answer says when it is free."""
    world.deposit(NEEDED)
    world.clock.advance(7 * DAY_S - 1)
    with pytest.raises(ChutesError, match="deposit_locked") as caught:
        world.ask()
    assert caught.value.facts["unlocks_at_s"] == T0 + 7 * DAY_S
    (deposit,) = world.deposits.of("alice")
    assert code_of(world.ask, deposit_ids=[deposit.deposit_id]) == "deposit_locked"


def test_a_refund_twice(world):
    """Asked back is asked back, and refunded is refunded."""
    world.deposit(NEEDED)
    (deposit,) = world.deposits.of("alice")
    world.clock.advance(7 * DAY_S)
    refund = world.ask()
    assert code_of(world.ask) == "already_requested"
    assert code_of(world.ask, deposit_ids=[deposit.deposit_id]) == "already_requested"
    world.refunds.take(world.paid(refund))
    assert code_of(world.ask) == "already_refunded"
    assert code_of(world.ask, deposit_ids=[deposit.deposit_id]) == "already_refunded"


def test_another_account_cannot_ask_it_back(world):
    """Somebody else's deposit does not exist for it, and neither does the refund."""
    world.deposit(NEEDED)
    (deposit,) = world.deposits.of("alice")
    world.clock.advance(7 * DAY_S)
    ask = {"user_id": "bob", "address": OTHER}
    assert code_of(world.ask, deposit_ids=[deposit.deposit_id], **ask) == "no_such_deposit"
    assert code_of(world.ask, **ask) == "no_deposit"
    refund = world.ask()
    with pytest.raises(ChutesError, match="no_such_refund"):
        world.refunds.get(world.account("bob"), refund.refund_id)


def test_a_refund_goes_to_the_proven_coldkey_or_to_a_named_address(world):
    """A claimed coldkey gets nothing."""
    world.deposit(NEEDED)
    world.deposit(NEEDED, to="dep-2")
    world.clock.advance(7 * DAY_S)
    assert code_of(world.ask, user_id="bob") == "coldkey_not_proven"
    assert world.ask(user_id="bob", address=OTHER).destination_ss58 == OTHER
    for wrong in ("nowhere", "dep-1", OTHER[:-1], ""):
        assert code_of(world.ask, address=wrong) == "bad_address"
    assert world.ask().destination_ss58 == COLD


def test_a_fee_larger_than_the_deposit(world):
    """It stays where it is, and the answer says so before anything is promised."""
    world.deposit(FEE + 500)
    world.clock.advance(7 * DAY_S)
    assert code_of(world.ask) == "fee_exceeds_deposit"
    assert world.states() == ["held"]


def test_where_the_fee_is_not_known_the_signer_decides(world):
    """A stall of the chain keeps nobody from asking."""

    def stalled():
        raise Unavailable("chain_unreachable", "stalled")

    world.deposit(NEEDED)
    world.clock.advance(7 * DAY_S)
    world.fee_rao = stalled
    refund = world.ask()
    assert world.refunds.take(RefundReport(refund.refund_id, "waiting", reason="chain_unreachable"))
    assert world.refunds.get(world.account(), refund.refund_id).reason == "chain_unreachable"
    world.refunds.take(RefundReport(refund.refund_id, "failed", reason="fee_exceeds_deposit"))
    assert world.states() == ["held"]
    assert world.is_developer


def test_the_role_goes_with_the_request_and_notice_is_given(world):
    """Role and request are one commit; running chutes have a day."""
    world.deposit(NEEDED)
    world.clock.advance(7 * DAY_S)
    world.ask()
    assert not world.is_developer
    now_s = world.clock.now_s()
    assert world.store.notices.get("alice").drains_at_s == now_s + DAY_S
    assert not world.store.notices.due("alice", now_s + DAY_S - 1)
    assert world.store.notices.due("alice", now_s + DAY_S)
    world.deposit(NEEDED)
    assert world.is_developer
    assert world.store.notices.get("alice") is None


def test_a_paid_refund_leaves_the_ledger_equal_to_the_chain(world):
    """What is at the address is the existential deposit; the user is owed nothing."""
    world.deposit(NEEDED)
    world.clock.advance(7 * DAY_S)
    refund = world.ask()
    world.refunds.take(RefundReport(refund.refund_id, "submitted", "0xaa"))
    assert world.refunds.get(world.account(), refund.refund_id).state is RefundState.SUBMITTED
    report = world.paid(refund)
    assert world.refunds.take(report)
    assert not world.refunds.take(report)
    assert not world.refunds.take(replace(report, outcome="failed"))
    ledger = world.store.ledger
    assert ledger.balance(chain_deposit("alice")) == -500
    assert ledger.balance(user_deposit("alice")) == 0
    assert ledger.balance(refund_flow("alice")) == 0
    assert world.states() == ["refunded"]


def test_a_failed_refund_can_be_asked_again_and_its_fee_is_the_operators(world):
    """The deposit is held again, whole."""
    world.deposit(NEEDED)
    world.clock.advance(7 * DAY_S)
    first = world.ask()
    world.block(losses=(FEE,))
    world.refunds.take(RefundReport(first.refund_id, "failed", "0xf", 0, FEE, 3, "dispatch"))
    assert world.states() == ["held"]
    assert world.is_developer
    second = world.ask()
    world.refunds.take(world.paid(second, rest=500 + FEE))
    assert world.store.ledger.balance(refund_flow("alice")) == 0
    assert world.states() == ["refunded"]


def test_an_extrinsic_that_died_is_sent_again(world):
    """Submitted, requested again, submitted with another hash, finalized."""
    world.deposit(NEEDED)
    world.clock.advance(7 * DAY_S)
    refund = world.ask()
    take = world.refunds.take
    assert take(RefundReport(refund.refund_id, "submitted", "0x1"))
    assert not take(RefundReport(refund.refund_id, "submitted", "0x1"))
    assert not take(RefundReport(refund.refund_id, "died", "0xother"))
    assert take(RefundReport(refund.refund_id, "died", "0x1"))
    assert not take(RefundReport(refund.refund_id, "died", "0x1"))
    assert take(RefundReport(refund.refund_id, "submitted", "0x2"))
    assert take(RefundReport(refund.refund_id, "submitted", "0x3"))
    assert take(world.paid(refund))
    assert world.states() == ["refunded"]


def test_money_that_left_without_a_refund_is_missing(world):
    """After a restore that forgot a refund, its deposit is no deposit and is not paid again."""
    world.deposit(NEEDED)
    world.clock.advance(5 * DAY_S)
    world.deposit(NEEDED // 2)
    world.clock.advance(2 * DAY_S)
    world.block((NEEDED - 600, "dep-1", COLD), losses=(FEE,))
    assert not world.is_developer
    assert code_of(world.ask) == "deposit_spent"


def test_tao_sent_to_the_wrong_address_of_ours_is_not_lost(world):
    """A deposit by mistake comes back after its lock, e.g. as credit; a payment is credit."""
    world.deposit(NEEDED, to="pay-1")
    assert not world.is_developer
    assert world.store.ledger.balance("user:alice:credit") == NEEDED
    world.deposit(NEEDED)
    world.clock.advance(7 * DAY_S)
    pay = Keypair.create_from_uri("//Pay").ss58_address
    assert world.ask(address=pay).destination_ss58 == pay


def test_all_depositors_may_leave_at_once(world):
    """Each refund is its own order, from its own address."""
    world.deposit(NEEDED)
    world.deposit(NEEDED, to="dep-2")
    world.clock.advance(7 * DAY_S)
    world.ask()
    world.ask(user_id="bob", address=OTHER)
    orders = {(o.number, o.deposit_address, o.amount_rao) for o in world.refunds.orders()}
    assert orders == {(1, "dep-1", NEEDED), (2, "dep-2", NEEDED)}


def test_blocks_that_come_again_change_nothing(world):
    """Deposits and outflows are applied once."""
    first = world.deposit(NEEDED)
    assert world.payments.apply(first) == 0
    assert world.deposits.held_rao("alice") == NEEDED


def test_every_transition_of_the_tables_is_reached_and_no_other_is_taken(world):
    """The tables are the rule: a move outside of them is refused by the store."""
    world.deposit(NEEDED)
    (deposit,) = world.deposits.of("alice")
    for state in DepositState:
        if state not in DEPOSIT_NEXT[deposit.state]:
            with pytest.raises(ChutesError, match="bad_transition"):
                world.store.deposits.move(deposit, state, refund_id="")
    world.clock.advance(7 * DAY_S)
    refund = world.ask()
    for state in RefundState:
        if state not in REFUND_NEXT[refund.state]:
            with pytest.raises(ChutesError, match="bad_transition"):
                world.store.refunds.move(refund, replace(refund, state=state))
    stale = replace(refund, state=RefundState.SUBMITTED)
    with pytest.raises(ChutesError, match="refund_moved"):
        world.store.refunds.move(stale, replace(stale, state=RefundState.FINALIZED))
