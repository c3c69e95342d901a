"""One paid call as the gateway saw it: the record that billing and scoring read.

Invariant: (worker, sequence) is unique and written to the journal before the last byte of the
answer is sent; nothing in it holds what was asked or answered.
"""

from dataclasses import dataclass
from typing import Literal

from chutes_core.base.units import Rao
from chutes_core.validator.domain.money import Rate

Outcome = Literal["ok", "client_gone", "chute_error", "chute_error_paid", "failed"]
"""ok: 2xx-4xx passed on; client_gone: the caller cut the stream; chute_error: the chute's own 5xx;
chute_error_paid: one more of these than is free (ADR 0007); failed: no instance gave an answer."""

CHARGED: tuple[Outcome, ...] = ("ok", "client_gone", "chute_error_paid")


@dataclass(frozen=True)
class Invocation:
    """``usage_us`` is the time that the gateway itself measured on the answering instance.

    ``prompt_tokens`` and ``completion_tokens`` are what an OpenAI-style answer claimed, capped by
    the bytes that were seen; None where it claimed nothing. Nothing is charged by them.
    """

    worker: str
    sequence: int
    invocation_id: str
    user_id: str
    key_id: str
    chute_id: str
    launch_id: str
    rate_id: str
    rao_per_hour: int
    hold_rao: int
    free: bool
    started_at_us: int
    usage_us: int
    bytes_in: int
    bytes_out: int
    attempts: int
    status: int
    outcome: Outcome
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def charged(self) -> bool:
        """Tell whether the call costs anything."""
        return not self.free and self.outcome in CHARGED

    @property
    def charge_rao(self) -> Rao:
        """Return what it costs, by the price that it was promised; 0 where it is not charged."""
        rate = Rate(self.rate_id, self.rao_per_hour, self.hold_rao)
        return rate.charge_rao(self.usage_us) if self.charged else Rao(0)


@dataclass(frozen=True)
class Batch:
    """Records of one worker that were settled together; ``head`` is signed (wire/receipt)."""

    worker: str
    first: int
    last: int
    head: str
    signature: str

    def holds(self, call: Invocation) -> bool:
        """Tell whether a call was settled with this batch."""
        return call.worker == self.worker and self.first <= call.sequence <= self.last
