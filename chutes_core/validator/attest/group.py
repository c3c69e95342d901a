"""Several attestations at the same instant: one GPU behind two of them misses its deadlines.

Path: attest/attestor -> here -> a session in a thread each. All say hello, measure and build first;
the first leg of every session goes out when the last is ready. Where light challenges start beside
fuller ones, they are made so long that none of them fits into the slack of such a first leg.
Invariant: one session that fails or hangs holds the others up for `WAIT_S` at most, and every plan
gets its outcome.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from chutes_core.validator.attest.sessions import run_session
from chutes_core.validator.attest.work import leg1_us
from chutes_core.validator.domain.verdicts import Attestation, AttestPlan

WAIT_S = 60.0
BESIDE_DIVISOR = 2
"""A light challenge takes half of the longest first leg beside it: its slack is 30 %, and 5 %."""
Run = Callable[..., Attestation]
Passed = Callable[[int], None]


class StartGate:
    """Opens when every party has come or gone, or after a time limit."""

    def __init__(self, parties: int, timeout_s: float = WAIT_S) -> None:
        self._missing = parties
        self._timeout_s = timeout_s
        self._changed = threading.Condition()

    def come(self) -> None:
        """Return when all have come or gone, or the time is over."""
        with self._changed:
            self._missing -= 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._missing <= 0, self._timeout_s)

    def go(self) -> None:
        """Leave without starting."""
        with self._changed:
            self._missing -= 1
            self._changed.notify_all()


def run_group(
    plans: tuple[AttestPlan, ...], *, run: Run = run_session, passed: Passed | None = None
) -> tuple[Attestation, ...]:
    """Run the plans' sessions with a common start; the outcomes in the plans' order.

    Args:
        plans: what to attest.
        run: one session.
        passed: told the place of each plan that has passed, at once, from its session's thread.
    """

    def one(place: int) -> Attestation:
        outcome = _one(plans[place], gate, run)
        if passed is not None and outcome.passed:
            passed(place)
        return outcome

    gate = StartGate(len(plans))
    plans = balanced(plans)
    with ThreadPoolExecutor(max_workers=len(plans), thread_name_prefix="session") as threads:
        return tuple(threads.map(one, range(len(plans))))


def balanced(plans: tuple[AttestPlan, ...]) -> tuple[AttestPlan, ...]:
    """Make light challenges long enough for the fuller ones that start beside them."""
    longest_us = max(
        (leg1_us(plan.profile, gpu.gpu_class)
         for plan in plans if plan.scope != "light" for gpu in plan.gpus),
        default=0,
    )  # fmt: skip
    least_us = longest_us // BESIDE_DIVISOR
    return tuple(
        replace(plan, least_us=max(plan.least_us, least_us)) if plan.scope == "light" else plan
        for plan in plans
    )


def _one(plan: AttestPlan, gate: StartGate, run: Run) -> Attestation:
    started = False

    def start() -> None:
        nonlocal started
        started = True
        gate.come()

    try:
        return run(plan, start=start)
    finally:
        if not started:
            gate.go()
