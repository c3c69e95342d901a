"""Turns an ended call into an Invocation in the journal and settles its hold.

Path: forward -> metering -> journal; billing and scoring read the record. Invariants: usage is the
gateway's own clock from dispatch on the answering instance to its last byte; the record is written
before the caller gets the last byte; a call that no instance received leaves no record.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

from loguru import logger

from chutes_core.base.clock import Clock
from chutes_core.validator.domain.invocations import CHARGED, Outcome
from chutes_core.validator.gateway.call import Call
from chutes_core.validator.gateway.grace import Grace
from chutes_core.validator.gateway.metrics import Histogram
from chutes_core.validator.gateway.usage import Tail

_TRUE: Final = b"true"
_FALSE: Final = b"false"
_REST: Final = (
    b'"hold_rao":%d,"free":%b,"started_at_us":%d,"usage_us":%d,"bytes_in":%d,"bytes_out":%d,'
    b'"attempts":%d,"status":%d,"outcome":"%b"%b}'
)
_TOKENS: Final = b',"prompt_tokens":%d,"completion_tokens":%d'


class Records(Protocol):
    """The part of the journal that metering needs."""

    def append_rests(self, rests: Sequence[bytes]) -> int:
        """Write records (their JSON behind the sequence); return the sequence of the first."""
        ...


class Ended:
    """A call that an instance has answered, or not."""

    __slots__ = ("bytes_out", "call", "outcome", "usage_us")

    def __init__(self, call: Call, outcome: Outcome, bytes_out: int, usage_us: int) -> None:
        self.call = call
        self.outcome = outcome
        self.bytes_out = bytes_out
        self.usage_us = usage_us


class Metering:
    """Counts outcomes since the start in ``outcomes``, and how long their calls took."""

    def __init__(self, *, journal: Records, clock: Clock, grace: Grace | None = None) -> None:
        self._journal = journal
        self._clock = clock
        self._grace = grace or Grace(clock)
        self.outcomes: Counter[str] = Counter()
        self.durations, self.first_bytes = Histogram(), Histogram()
        self.access_log = False

    def record(self, call: Call, outcome: Outcome, *, bytes_out: int) -> None:
        """Write what a call came to; its hold ends in every case.

        Raises:
            Unavailable: ``journal_full``; the caller must then not get a complete answer.
        """
        if call.dispatched_us is None and not (outcome == "failed" and call.faults):
            call.hold.release()
            return
        self.record_all([Ended(call, outcome, bytes_out, call.usage_us(self._clock))])

    def record_all(self, ended: Sequence[Ended]) -> None:
        """Write what several calls came to in one write; their holds end in every case.

        An error of a chute's own is free of charge as long as `Grace` forgives it.

        Raises:
            Unavailable: ``journal_full``, for all of them.
        """
        for one in ended:
            if one.outcome == "chute_error" and not self._forgives(one):
                one.outcome = "chute_error_paid"
        try:
            sequence = self._journal.append_rests([_record(one) for one in ended])
            for one in ended:
                one.call.hold.settle(sequence, _charge_rao(one), one.outcome)
                sequence += 1
        except BaseException:
            for one in ended:
                one.call.hold.release()
            raise
        observe, observe_first = self.durations.observe, self.first_bytes.observe
        for one in ended:
            self.outcomes[one.outcome] += 1
            observe(one.usage_us)
            if one.call.first_byte_us:  # 0: no head of an answer came
                observe_first(one.call.first_byte_us)
            if self.access_log:
                _log(one)

    def _forgives(self, one: Ended) -> bool:
        admitted = one.call.admitted
        return self._grace.forgives(admitted.payer.user_id, admitted.chute.chute_id, one.usage_us)


def _log(one: Ended) -> None:
    """Say one line of the access log: no key, no user, no address, nothing asked or answered."""
    call = one.call
    logger.bind(
        invocation_id=call.invocation_id,
        chute=call.chute_id,
        launch=call.launch_id,
        outcome=one.outcome,
        status=call.status,
        usage_us=one.usage_us,
        first_byte_us=call.first_byte_us,
        bytes_in=call.bytes_in,
        bytes_out=one.bytes_out,
        attempts=call.attempts,
    ).info("Call ended")


def _charge_rao(one: Ended) -> int:
    call = one.call
    admitted = call.admitted
    if one.outcome not in CHARGED or (admitted.payer.free and not call.hold.paid):
        return 0
    return admitted.chute.rate.charge_rao(one.usage_us)


def _record(one: Ended) -> bytes:
    """Return the JSON of an Invocation from behind its sequence on, its fields in their order."""
    call = one.call
    hold, admitted = call.hold, call.admitted
    begin = admitted.recorded % (call.invocation_id.encode(), call.launch_id.encode())
    return begin + _REST % (
        hold.rao,
        _TRUE if admitted.payer.free and not hold.paid else _FALSE,
        call.started_at_us,
        one.usage_us,
        call.bytes_in,
        one.bytes_out,
        call.attempts,
        call.status,
        one.outcome.encode(),
        b"" if call.tail is None else _tokens(one, call.tail),
    )


def _tokens(one: Ended, tail: Tail) -> bytes:
    """Return what an answer says of its tokens; of one that failed nothing is believed."""
    found = None
    if one.outcome in ("ok", "client_gone") and one.call.status < 400:
        found = tail.tokens(bytes_in=len(one.call.body), bytes_out=one.bytes_out)
    return b"" if found is None else _TOKENS % found
