"""What a repeated request's plan keeps, and what it must not keep."""

import weakref

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Unauthenticated
from chutes_core.validator.domain.snapshot import Snapshot
from chutes_core.validator.gateway.plane import plan as module
from chutes_core.validator.gateway.plane.plan import Plan
from chutes_core.validator.gateway.plane.request import shape_of


class Key:
    expires_at_s = None


@pytest.mark.interpreted
def test_a_plan_is_of_one_snapshot_and_keeps_none_alive(monkeypatch):
    """Heads are remembered for long: a thousand of them must not hold a thousand pictures."""
    asked = []
    monkeypatch.setattr(module, "authenticate", lambda snapshot, headers, now_s: Key)
    monkeypatch.setattr(module, "admit", lambda snapshot, *facts, **named: asked.append(1) or "in")
    headers = ((b"host", b"x"), (b"authorization", b"Bearer k"))
    plan = Plan(shape_of(b"POST", "1.1", b"/c/slug/run", headers, has_length=True), None)
    first, clock = Snapshot(), ManualClock()
    for _ in range(2):
        assert plan.admitted(first, clock, None) == "in"
    assert len(asked) == 1
    gone = weakref.ref(first)
    del first
    assert gone() is None
    plan.admitted(Snapshot(), clock, None)
    assert len(asked) == 2

    def refuse(snapshot, headers, now_s):
        raise Unauthenticated("bad_key", "revoked")

    monkeypatch.setattr(module, "authenticate", refuse)
    with pytest.raises(Unauthenticated):
        plan.admitted(Snapshot(), clock, None)
