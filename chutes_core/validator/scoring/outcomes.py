"""What became of one look at the weights: values, and the log line of each.

Beside scoring/weights. Invariant: a refusal of the chain is a value with a code and a hint; only
what a person must act on is an alarm.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from loguru import logger

from chutes_core.base.errors import ChutesError, Exhausted
from chutes_core.chain.extrinsics import Receipt
from chutes_core.validator.scoring.evidence import Evidence


@dataclass(frozen=True)
class Submitted:
    """Weights of this epoch were sent and are final."""

    epoch: int
    weights: Mapping[int, int]
    receipt: Receipt
    evidence: Evidence


@dataclass(frozen=True)
class Waiting:
    """Nothing to do now. ``reason``: done, early or rate_limited; look again after ``blocks``."""

    epoch: int
    reason: str
    blocks: int


@dataclass(frozen=True)
class Skipped:
    """Nothing was sent and trying again soon may help; ``code`` and ``hint`` say why."""

    epoch: int
    code: str
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Alarm:
    """Nothing is sent until a person acts; ``code`` and ``hint`` say on what."""

    epoch: int
    code: str
    detail: str
    hint: str = ""


WeightOutcome = Submitted | Waiting | Skipped | Alarm

_ALARMS = frozenset(
    {
        "coldkey_cannot_pay",
        "no_validator_permit",
        "not_registered",
        "weights_version_newer",
        "launch_of_two_miners",
        "unknown_gpu_class",
        "bad_weights",
    }
)


def failed(epoch: int, error: ChutesError) -> WeightOutcome:
    """Return the outcome of an epoch in which this error kept weights from being set."""
    if isinstance(error, Exhausted):
        return Waiting(epoch, "rate_limited", int(str(error.facts.get("blocks", 1))))
    kind = Alarm if error.code in _ALARMS else Skipped
    return kind(epoch, error.code, error.message, error.hint)


def told(outcome: WeightOutcome) -> WeightOutcome:
    """Log an outcome, one line with its reason, and return it; waiting is not worth a line."""
    if isinstance(outcome, Submitted):
        logger.bind(
            epoch=outcome.epoch,
            extrinsic=outcome.receipt.extrinsic_hash,
            block=outcome.receipt.block_number,
            uids=len(outcome.weights),
            evidence=outcome.evidence.sha256,
        ).info("weights were set")
    elif isinstance(outcome, Skipped):
        logger.bind(epoch=outcome.epoch, code=outcome.code, hint=outcome.hint).warning(
            "weights were not set: {}", outcome.detail
        )
    elif isinstance(outcome, Alarm):
        logger.bind(epoch=outcome.epoch, code=outcome.code, hint=outcome.hint).error(
            "weights have stopped: {}", outcome.detail
        )
    return outcome
