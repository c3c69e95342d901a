from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from chutes_core.base.errors import PaymentRequired
from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.domain.money import Rate
from chutes_core.validator.domain.snapshot import PayerView
from chutes_core.validator.gateway.holds import Hold, Holds

STEPS = st.lists(
    st.tuples(st.sampled_from(("begin", "settle", "release", "drain")), st.integers(0, 120)),
    max_size=60,
)


@given(budget=st.integers(1, 500), steps=STEPS)
def test_a_key_never_spends_more_than_its_budget(budget: int, steps: list[tuple[str, int]]):
    """However calls begin, end and are drained, charges and open holds stay within the budget."""
    holds, running = Holds(), list[Hold]()
    key = ApiKey("k", "u", "k", "h", True, (), 0, budget_rao=budget)
    charges: list[int] = []
    for step, size in steps:
        if step == "begin":
            try:
                running.append(holds.open(PayerView("u", "", 10**9), Rate("r", 1, size), key))
            except PaymentRequired:
                taken = sum(charges) + sum(hold.rao for hold in running)
                assert taken + size > budget
        elif step == "drain":
            key = replace(key, spent_rao=sum(charges))
            holds.drained(len(charges))
        elif running:
            hold = running.pop()
            if step == "settle":
                charges.append(hold.rao * size // 120)
                hold.settle(len(charges), charges[-1])
            hold.release()
        assert sum(charges) + sum(hold.rao for hold in running) <= budget
