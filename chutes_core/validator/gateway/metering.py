"""Turns an ended call into an Invocation in the journal and settles its hold.

Path: forward -> metering -> journal; billing and scoring read the record. Invariants: usage is the
gateway's own clock from dispatch on the answering instance to its last byte; the record is written
before the caller gets the last byte; a call that no instance received leaves no record.
"""

from collections import Counter
from typing import Protocol

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.invocations import Invocation, Outcome
from chutes_core.validator.gateway.call import Call


class Records(Protocol):
    """The part of the journal that metering needs."""

    def append(self, invocation: Invocation) -> int:
        """Write one record and return its sequence."""
        ...


class Metering:
    """Counts outcomes since the start in ``outcomes``."""

    def __init__(self, *, journal: Records, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self.outcomes: Counter[str] = Counter()

    def record(self, call: Call, outcome: Outcome, *, bytes_out: int) -> None:
        """Write what a call came to; its hold ends in every case.

        Raises:
            Unavailable: ``journal_full``; the caller must then not get a complete answer.
        """
        if call.dispatched_us is None and not (outcome == "failed" and call.faults):
            call.hold.release()
            return
        invocation = self._invocation(call, outcome, bytes_out)
        try:
            sequence = self._journal.append(invocation)
            rate = call.admitted.chute.rate
            charge_rao = rate.charge_rao(invocation.usage_us) if invocation.charged else 0
            call.hold.settle(sequence, charge_rao)
        finally:
            call.hold.release()
        self.outcomes[outcome] += 1

    def _invocation(self, call: Call, outcome: Outcome, bytes_out: int) -> Invocation:
        admitted = call.admitted
        rate = admitted.chute.rate
        return Invocation(
            worker="",
            sequence=0,
            invocation_id=call.invocation_id,
            user_id=admitted.payer.user_id,
            key_id=admitted.key.key_id,
            chute_id=call.chute_id,
            launch_id=call.launch_id,
            rate_id=rate.rate_id,
            rao_per_hour=rate.rao_per_hour,
            hold_rao=call.hold.rao,
            free=admitted.payer.free,
            started_at_us=call.started_at_us,
            usage_us=call.usage_us(self._clock),
            bytes_in=len(call.body),
            bytes_out=bytes_out,
            attempts=call.attempts,
            status=call.status,
            outcome=outcome,
        )
