"""Free calls of a day: counted like money, by the same holds."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from chutes_core.base.errors import PaymentRequired
from chutes_core.validator.domain.invocations import CHARGED, Invocation
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import FreeCalls, PayerView
from chutes_core.validator.gateway.holds import Hold, Holds

RATE = Rate("r", 3600, 100)
PER_DAY = 5
OUTCOMES = st.sampled_from(("ok", "client_gone", "chute_error_paid", "chute_error", "failed"))


def payer(left: int, spendable_rao: int = 0) -> PayerView:
    quota = FreeCalls(left, PER_DAY, 1_700_006_400)
    return PayerView("u", "", spendable_rao, free=True, free_calls=quota)


class FreeDay(RuleBasedStateMachine):
    """Calls begin and end, records drain: of a day's free calls no more are made than there are."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.holds = Holds()
        self.records: list[tuple[int, bool]] = []  # sequence, whether it counts
        self.drained = 0
        self.open = 0

    @rule(target=running)
    def begin(self) -> Hold | None:
        counted = sum(counts for sequence, counts in self.records if sequence <= self.drained)
        try:
            hold = self.holds.open(payer(max(0, PER_DAY - counted)), RATE)
        except PaymentRequired:
            assert self.used + self.open >= PER_DAY
            return None
        assert (hold.rao, hold.paid) == (0, False)
        self.open += 1
        return hold

    @rule(hold=consumes(running), outcome=OUTCOMES)
    def end(self, hold: Hold | None, outcome: str) -> None:
        if hold is not None:
            self.records.append((len(self.records) + 1, outcome in CHARGED))
            hold.settle(len(self.records), 0, outcome)  # type: ignore[arg-type]
            hold.release()
            self.open -= 1

    @rule(hold=consumes(running))
    def give_up(self, hold: Hold | None) -> None:
        if hold is not None:
            hold.release()
            self.open -= 1

    @rule(upto=st.integers(0, 30))
    def drain(self, upto: int) -> None:
        self.drained = max(self.drained, min(upto, len(self.records)))
        self.holds.drained(self.drained)

    @property
    def used(self) -> int:
        return sum(counts for _, counts in self.records)

    @invariant()
    def no_more_than_there_are(self) -> None:
        assert self.used + self.open <= PER_DAY


TestFreeDay = FreeDay.TestCase


def test_beyond_the_days_free_calls_a_call_is_paid_for():
    """Whoever has credit goes on, and pays; the account without hears when free ones come back."""
    holds = Holds()
    for _ in range(2):
        assert not holds.open(payer(2, 150), RATE).paid
    paid = holds.open(payer(2, 150), RATE)
    assert (paid.paid, paid.rao) == (True, 100)
    with pytest.raises(PaymentRequired, match="free_calls_spent") as caught:
        holds.open(payer(2, 150), RATE)
    assert "2023-11-15T00:00:00Z" in caught.value.message
    paid.settle(1, 40)
    assert holds.taken_rao("u") == 40


def test_without_a_quota_free_calls_are_not_counted():
    """None sets no bound."""
    holds = Holds()
    unbounded = replace(payer(0), free_calls=None)
    assert all(holds.open(unbounded, RATE).rao == 0 for _ in range(20))


def test_a_restart_counts_what_was_not_drained():
    """Free calls in the journal that the store does not have yet count again after a restart."""
    record = Invocation(
        "w", 7, "i", "u", "k", "c", "l", "r", 3600, 0, True, 1, 1, 1, 1, 1, 200, "ok"
    )
    holds = Holds()
    holds.replay([record, replace(record, sequence=8, outcome="failed")])
    holds.open(payer(2), RATE)
    with pytest.raises(PaymentRequired):
        holds.open(payer(2), RATE)
    holds.drained(8)
    holds.open(payer(2), RATE)
