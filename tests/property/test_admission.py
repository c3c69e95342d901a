from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from chutes_core.base.errors import PaymentRequired
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import PayerView
from chutes_core.validator.gateway.holds import Hold, Holds

USERS = st.sampled_from(("a", "b"))


class Accounts(RuleBasedStateMachine):
    """Calls begin and end, the ledger drains: what is spendable is never spent twice.

    ``balance`` is the true ledger; ``seen`` is the snapshot's view of it, refreshed by `swap`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.holds = Holds()
        self.sequence = 0
        self.paid_in = {"a": 500, "b": 90}
        self.charges: list[tuple[int, str, int]] = []
        self.drained = 0
        self.seen = dict(self.paid_in)
        self.open: dict[str, int] = {"a": 0, "b": 0}

    running = Bundle("running")

    @rule(target=running, user=USERS, hold=st.integers(0, 200), free=st.booleans())
    def begin(self, user: str, hold: int, free: bool) -> tuple[str, Hold] | None:
        payer = PayerView(user, "", self.seen[user], free)
        taken = self.holds.taken_rao(user)
        try:
            opened = self.holds.open(payer, Rate("r", 1, hold))
        except PaymentRequired:
            assert not free
            assert hold > max(self.seen[user] - taken, 0)
            return None
        assert free or hold == 0 or hold <= self.seen[user] - taken
        assert opened.rao == (0 if free else hold)
        self.open[user] += opened.rao
        return (user, opened)

    @rule(call=consumes(running), part=st.integers(0, 100))
    def settle(self, call: tuple[str, Hold] | None, part: int) -> None:
        if call is None:
            return
        user, hold = call
        self.sequence += 1
        charge = hold.rao * part // 100
        self.charges.append((self.sequence, user, charge))
        hold.settle(self.sequence, charge)
        hold.release()
        self.open[user] -= hold.rao

    @rule(call=consumes(running))
    def give_up(self, call: tuple[str, Hold] | None) -> None:
        if call is None:
            return
        call[1].release()
        call[1].release()
        self.open[call[0]] -= call[1].rao

    @rule(upto=st.integers(0, 50))
    def swap(self, upto: int) -> None:
        self.drained = max(self.drained, min(upto, self.sequence))
        for user in self.seen:
            spent = sum(c for s, u, c in self.charges if u == user and s <= self.drained)
            self.seen[user] = self.paid_in[user] - spent
        self.holds.drained(self.drained)

    @invariant()
    def taken_is_what_is_open_and_what_is_not_drained(self) -> None:
        for user in self.seen:
            waiting = sum(c for s, u, c in self.charges if u == user and s > self.drained)
            assert self.holds.taken_rao(user) == self.open[user] + waiting

    @invariant()
    def nobody_can_spend_more_than_was_paid_in(self) -> None:
        for user, paid_in in self.paid_in.items():
            charged = sum(c for _, u, c in self.charges if u == user)
            assert charged + self.open[user] <= paid_in


TestAccounts = Accounts.TestCase


@given(
    usage_us=st.integers(-1, 10**15), per_hour=st.integers(0, 10**12), hold=st.integers(0, 10**12)
)
def test_a_charge_never_exceeds_its_hold(usage_us: int, per_hour: int, hold: int):
    """Whatever the usage, the price and the hold, the charge lies between nothing and the hold."""
    assert 0 <= Rate("r", per_hour, hold).charge_rao(usage_us) <= hold
