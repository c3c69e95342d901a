"""RESPONSE payloads as heads of HTTP answers, remembered: an instance repeats itself.

Invariant: a pure function of the payload; what is remembered is bounded in number and size.
"""

from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from chutes_core.base.errors import ProtocolError
from chutes_core.validator.gateway.headers import promised_length, to_caller
from chutes_core.validator.gateway.plane.heads import header_lines, status_line
from chutes_core.wire.call import ResponseHead

MAX_REMEMBERED: Final = 1024
MAX_REMEMBERED_BYTES: Final = 2048


@dataclass(frozen=True)
class Answer:
    """``before`` stands before the date, ``lines`` after it; ``promised`` is the body's length."""

    status: int
    before: bytes
    lines: bytes
    promised: int | None


class BadAnswer(Exception):
    """The frame is sound, and what it says cannot be sent to a caller; ``error`` says why."""

    def __init__(self, status: int, error: ProtocolError) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error


class Answers:
    """Parses RESPONSE payloads."""

    def __init__(self) -> None:
        self._known: dict[bytes, Answer] = {}

    def known(self, payload: bytes) -> Answer | None:
        """Return the head of an answer that came before."""
        return self._known.get(payload)

    def of(self, payload: bytes) -> Answer:
        """Return the head of an answer.

        Raises:
            ProtocolError: this is no RESPONSE; another connection may do better.
            BadAnswer: it is one, and unusable.
        """
        known = self._known.get(payload)
        if known is not None:
            return known
        answer = _parse(payload)
        if len(payload) <= MAX_REMEMBERED_BYTES:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[payload] = answer
        return answer


def _parse(payload: bytes) -> Answer:
    try:
        head = ResponseHead.model_validate_json(payload)
    except ValidationError as error:
        raise ProtocolError("bad_frame", "an unusable RESPONSE") from error
    if head.status < 200:
        raise ProtocolError("bad_response", "the instance sent an interim status")
    try:
        headers = to_caller(head.headers)
        promised = promised_length(headers)
        return Answer(head.status, status_line(head.status), header_lines(headers), promised)
    except ProtocolError as error:
        raise BadAnswer(head.status, error) from error
