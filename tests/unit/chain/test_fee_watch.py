"""The balance that pays for weights is looked after."""

from chutes_core.base.clock import ManualClock
from chutes_core.validator import feewatch
from chutes_core.validator.feewatch import CODE, FIGURE, FeeWatch
from chutes_core.validator.health import Health


class Chain:
    rao = 0

    def balance_rao(self, address_ss58):
        return self.rao


def test_a_low_balance_is_told_once_and_again_when_it_gets_much_worse(monkeypatch):
    """Enough is silent; the alarm comes back after a top-up."""
    told = []
    monkeypatch.setattr(feewatch.logger, "bind", lambda **facts: Log(told, facts))
    chain = Chain()
    health = Health(ManualClock(1))
    watch = FeeWatch(chain, "cold", min_rao=100, health=health)
    counts = []
    for rao in (100, 99, 98, 49, 48, 100, 99):
        chain.rao = rao
        watch.run_once()
        counts.append(len(told))
        assert watch.low == (rao < 100)
        assert [problem.code for problem in health.problems()] == [CODE] * (rao < 100)
        assert health.view()["figures"] == {FIGURE: rao}
    assert counts == [0, 1, 1, 2, 2, 2, 3]
    assert told[0]["code"] == "coldkey_balance_low"


class Log:
    def __init__(self, told, facts):
        self.told = told
        self.facts = facts

    def error(self, text):
        self.told.append(self.facts)
