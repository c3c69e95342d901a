"""The record of an epoch can be redone by anyone."""

import hashlib
import json

import pytest

from chutes_core.base.errors import Invalid
from chutes_core.validator.scoring.evidence import build_evidence, recompute
from chutes_core.validator.scoring.score import DAY_US, GpuSpan, PaidWork, Work, score

SPANS = tuple(
    GpuSpan(f"l{n}", f"hot{n}", n, f"cold{n}", "h100", 2, 99 * DAY_US, 100 * DAY_US)
    for n in range(3)
)
CALLS = tuple(PaidWork(f"l{n}", "üser", "payer", DAY_US // 9, 10**9) for n in range(3))


def record(spans=SPANS, calls=CALLS):
    """Return the evidence of epoch 40."""
    work = Work(100 * DAY_US, 700_000, 12_000, 300_000_000, spans, calls)
    return build_evidence(40, work, score(work), {3: 65_535}, 7)


def test_text_is_canonical_and_named_by_its_hash():
    """Sorted keys, no spaces, ASCII; the hash is of these bytes."""
    made = record()
    body = json.loads(made.text)
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert made.text == canonical
    assert made.sha256 == hashlib.sha256(made.text.encode("ascii")).hexdigest()
    assert (body["epoch"], body["version_key"], body["weights"]) == (40, 7, [[3, 65_535]])


def test_order_of_records_does_not_show():
    """The same records in another order give the same text."""
    assert record(SPANS[::-1], CALLS[::-1]) == record()


def test_scores_can_be_recomputed():
    """An honest record holds."""
    assert recompute(record().text)


def test_a_raised_score_is_noticed():
    """A record whose scores do not follow from its inputs does not hold."""
    body = json.loads(record().text)
    body["scores"][0]["score"] += 1
    assert not recompute(json.dumps(body))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}'])
def test_other_text_is_refused(text):
    """What is no evidence is a typed error."""
    with pytest.raises(Invalid, match="bad_evidence"):
        recompute(text)


def test_signed_text_binds_chain_and_subnet():
    """A signature of one chain's epoch is none for another's."""
    made = record()
    assert made.signed_text("0xg", 1) != made.signed_text("0xg", 2)
    assert made.signed_text("0xg", 1).endswith(made.sha256)
