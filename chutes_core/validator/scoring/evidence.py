"""The record of one epoch's decision: what went in, what came out, so that anyone can redo it.

Served at `GET /evidence/{epoch}` and kept by the store. Invariant: the text is canonical JSON
(sorted keys, no spaces, ASCII, integers only), a pure function of inputs and outputs; so its
SHA-256 names the decision, and `recompute` finds the same scores from the text alone.

User ids and coldkeys of payers stand in it as they are: without them the rule "who owns the miner
does not count" could not be checked.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from chutes_core.base.errors import Invalid
from chutes_core.validator.scoring.score import GpuSpan, MinerKey, PaidWork, Work, score

FORMAT = "chutes-evidence/2"


@dataclass(frozen=True)
class Evidence:
    """``text`` is the canonical JSON; ``sha256`` is the hex digest of its ASCII bytes."""

    epoch: int
    text: str
    sha256: str

    def signed_text(self, genesis_hash: str, netuid: int) -> str:
        """Return what the validator's hotkey signs when it serves this record."""
        return "|".join((FORMAT, genesis_hash, str(netuid), str(self.epoch), self.sha256))


def build_evidence(
    epoch: int,
    work: Work,
    scores: Mapping[MinerKey, int],
    weights: Mapping[int, int],
    version_key: int,
) -> Evidence:
    """Return the record of one epoch.

    Args:
        epoch: block at which the epoch began.
        work: the inputs of the score.
        scores: its output.
        weights: the vector made from it, by uid.
        version_key: the weights version that it is sent under.
    """
    body = {
        "format": FORMAT,
        "epoch": epoch,
        "version_key": version_key,
        "inputs": {
            "now_us": work.now_us,
            "block": work.block,
            "block_ms": work.block_ms,
            "tao_usd_micros": work.tao_usd_micros,
            "spans": sorted((asdict(span) for span in work.spans), key=_order),
            "paid": sorted((asdict(paid) for paid in work.paid), key=_order),
        },
        "scores": [
            {"hotkey": hotkey, "registered_at_block": block, "score": points}
            for (hotkey, block), points in sorted(scores.items())
        ],
        "weights": [[uid, weight] for uid, weight in sorted(weights.items())],
    }
    text = _canonical(body)
    return Evidence(epoch, text, hashlib.sha256(text.encode("ascii")).hexdigest())


def recompute(text: str) -> bool:
    """Tell whether the scores in a record follow from its inputs.

    Raises:
        Invalid: ``bad_evidence``, it is not a record of this format.
    """
    try:
        body = json.loads(text)
        if body["format"] != FORMAT:
            raise KeyError(body["format"])
        inputs = body["inputs"]
        work = Work(
            now_us=inputs["now_us"],
            block=inputs["block"],
            block_ms=inputs["block_ms"],
            tao_usd_micros=inputs["tao_usd_micros"],
            spans=tuple(GpuSpan(**span) for span in inputs["spans"]),
            paid=tuple(PaidWork(**paid) for paid in inputs["paid"]),
        )
        claimed = {
            (row["hotkey"], row["registered_at_block"]): row["score"] for row in body["scores"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid("bad_evidence", f"this is no {FORMAT} record") from error
    return score(work) == claimed


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _order(record: dict[str, Any]) -> str:
    return _canonical(record)
