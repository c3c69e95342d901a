"""What every answer to a call tells of the call itself: rate and timing, beside its id.

Path: reply (the reference) and plane/fast_call write these lines behind the chute's own headers.
Invariant: both write the same bytes; numbers alone, nothing of anybody else's calls. A chute can
set none of these headers (headers.to_caller).
"""

from typing import Final

from chutes_core.validator.gateway.buckets import Standing
from chutes_core.validator.gateway.call import Call

LIMIT, REMAINING, RESET = b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset"
TIMING: Final = b"x-chutes-timing"
CHUTE: Final = b"x-chutes-chute"
_WAITED: Final = b"queue;dur=%d.%03d, first_byte;dur=%d.%03d"
_LINES: Final = b"".join(b"%b: %%d\r\n" % name for name in (LIMIT, REMAINING, RESET)) + (
    b"%b: %b\r\n" % (TIMING, _WAITED)
)

Pair = tuple[bytes, bytes]


def rate_pairs(standing: Standing) -> list[Pair]:
    """Return the headers of a key's rate limit."""
    return [
        (name, b"%d" % value)
        for name, value in zip((LIMIT, REMAINING, RESET), standing, strict=True)
    ]


def timing_of(call: Call) -> Pair:
    """Return the timing header of an answer whose head has come from an instance."""
    return (TIMING, _WAITED % (_ms(_queue_us(call)) + _ms(call.first_byte_us)))


def call_pairs(call: Call) -> list[Pair]:
    """Return what an answer tells of its call: its times, and for an alias which chute answered."""
    chute = call.answered_by
    return [timing_of(call), *([(CHUTE, chute.encode("latin-1", "replace"))] if chute else [])]


def timing_of_all(total_us: int) -> Pair:
    """Return the timing header of an answer of the gateway's own, which is whole at once."""
    return (TIMING, b"total;dur=%d.%03d" % _ms(total_us))


def told_lines(call: Call) -> bytes:
    """Return the lines of both, of an answer whose head has come from an instance."""
    limit, remaining, reset_s = call.standing or (0, 0, 0)
    queue_us, first_us = _queue_us(call), call.first_byte_us
    return _LINES % (
        limit,
        remaining,
        reset_s,
        queue_us // 1000,
        queue_us % 1000,
        first_us // 1000,
        first_us % 1000,
    )


def _queue_us(call: Call) -> int:
    return (call.dispatched_us or call.arrived_us) - call.arrived_us


def _ms(microseconds: int) -> tuple[int, int]:
    return divmod(microseconds, 1000)
