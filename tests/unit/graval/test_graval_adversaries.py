"""Cheaters on a CPU: what a prover may try, and what the verifier makes of it."""

import dataclasses

import numpy as np
import pytest

from graval import prf
from graval.challenge import Answer
from graval.params import PROFILES, deadlines, reference
from graval.prover.backend import Choice, Found, open_backend
from graval.prover.prove import Prover, run_chain
from graval.verifier import build_challenge, check

TEST = PROFILES["test"]
DUE = deadlines(TEST, reference("h100_sxm", "test"), rtt_us=400)


@pytest.fixture
def filled(challenge):
    """A stand-in that holds the challenge's whole fill."""
    backend = open_backend("numpy", Choice(0, declare="h100_sxm"))
    backend.fill(challenge.leg1.seed, challenge.leg1.layers, challenge.leg1.context.rows)
    return backend


def digests(challenge, backend):
    return tuple(
        prf.answer_digest(
            run_chain(backend, leg.key, leg.tags), challenge.leg1.seed, leg.to_bytes()
        )
        for leg in (challenge.leg1, challenge.leg2)
    )


def judge(challenge, answers, times_us=(1, 1)):
    return check(challenge, *answers, *times_us, DUE)


class Cheater:
    """A backend whose find is bent."""

    def __init__(self, honest, bend):
        self._honest, self._bend = honest, bend

    def find(self, asked, wanted):
        return self._bend(self._honest, asked, wanted)


def test_a_prover_that_lacks_the_last_tenth_of_the_rows_is_wrong(challenge, filled):
    """Missing rows that are not recomputed break the chain (some needle lies in a tenth)."""
    kept = challenge.leg1.context.rows * 9 // 10

    def short(honest, asked, wanted):
        found = honest.find(asked, wanted)
        count = sum(i < kept for i in found.indices)
        return Found(found.indices[:count], found.rows[:count])

    assert judge(challenge, digests(challenge, Cheater(filled, short))).outcome == "wrong"


def test_recomputing_the_missing_rows_is_right_and_only_late(challenge, filled):
    """A cheater who recomputes is told from an honest prover by the deadline alone."""
    rows = challenge.leg1.context.rows
    kept = rows * 9 // 10
    function = prf.RowFunction(prf.fill_key(challenge.leg1.seed, TEST.layers))
    again = function.rows(np.arange(kept, rows))

    def recompute(honest, asked, wanted):
        found = honest.find(asked, wanted)
        held = [at for at, i in enumerate(found.indices) if i < kept]
        hits = np.flatnonzero(np.isin(prf.row_tags(asked, again), wanted))
        return Found(
            tuple(found.indices[at] for at in held) + tuple(int(kept + i) for i in hits),
            np.concatenate([found.rows[held], again[hits]]),
        )

    answers = digests(challenge, Cheater(filled, recompute))
    assert judge(challenge, answers).accepted
    assert judge(challenge, answers, (1, DUE.leg2_us + 1)).inconclusive


def test_rows_of_low_precision_find_nothing(challenge, filled):
    """Rows without their low two bits match no tag: the lanes are mixed without linearity."""

    def coarse(honest, asked, wanted):
        rows = (honest._rows.view(np.uint8) & np.uint8(0xFC)).view(np.int8)
        hits = np.flatnonzero(np.isin(prf.row_tags(asked, rows), wanted))
        return Found(tuple(int(i) for i in hits), rows[hits])

    answers = digests(challenge, Cheater(filled, coarse))
    assert judge(challenge, answers).outcome == "wrong"
    asked = prf.query(challenge.leg1.key, 1)
    whole = prf.row_tags(asked, filled._rows)
    rough = prf.row_tags(asked, (filled._rows.view(np.uint8) & np.uint8(0xFC)).view(np.int8))
    share = float(np.mean((whole >> np.uint64(60)) == (rough >> np.uint64(60))))
    assert share < 0.1  # one in sixteen by chance: no filter


def test_leaving_before_the_last_needle_is_wrong(challenge, filled):
    """Stopping one needle early, as a prover must who guesses how many tags are real, is wrong."""

    def early(honest, asked, wanted):
        found = honest.find(asked, wanted)
        return Found(found.indices[:-1], found.rows[:-1])

    assert judge(challenge, digests(challenge, Cheater(filled, early))).outcome == "wrong"


def test_the_number_of_real_tags_is_not_told(context):
    """Stages of leg 2 have different numbers of needles and always as many tags."""
    counts = set()
    for number in range(8):
        asked = dataclasses.replace(context, nonce=bytes([number]) * 32)
        built = build_challenge(asked, TEST, secret=b"s" * 32)
        backend = open_backend("numpy", Choice(0, declare="h100_sxm"))
        backend.fill(built.leg1.seed, built.leg1.layers, context.rows)
        key = built.leg2.key
        for sent in built.leg2.tags:
            assert len(sent) == TEST.tags_per_stage * prf.TAG_BYTES
            tags = prf.tags_from_bytes(sent)
            query = prf.query(key, len(tags))
            found = backend.find(query, tags ^ query.masks)
            counts.add(len(found.indices))
            key = prf.next_key(key, found.indices, found.rows)
    assert min(counts) >= TEST.min_real
    assert max(counts) <= TEST.max_real
    assert len(counts) > 2


@pytest.mark.parametrize(
    "changed",
    [{"nonce": b"p" * 32}, {"instance_id": "other"}, {"miner_hotkey": "5Other"},
     {"validator_hotkey": "5Another"}, {"instance_public_key": b"q" * 32}],
)  # fmt: skip
def test_a_fill_made_ahead_or_for_another_is_of_no_use(context, filled, changed):
    """Precomputed rows, or those of another instance, hotkey or validator, have another seed."""
    other = build_challenge(dataclasses.replace(context, **changed), TEST, secret=b"s" * 32)
    assert judge(other, digests(other, filled)).outcome == "wrong"


def test_delayed_pings_buy_at_most_five_percent(challenge):
    """A far side that delays its pings by a second moves D1 and D2 by 5 % of them."""
    honest = deadlines(TEST, reference("h100_sxm", "test"), rtt_us=0)
    delayed = deadlines(TEST, reference("h100_sxm", "test"), rtt_us=1_000_000)
    for before, after in ((honest.leg1_us, delayed.leg1_us), (honest.leg2_us, delayed.leg2_us)):
        assert (after - before) * 20 <= after


def test_one_prover_behind_two_instances_cannot_hold_both_fills(context):
    """Challenged at once, a new leg 1 drops the fill before it: the other's leg 2 is refused."""
    from graval.errors import ProtocolViolation

    prover = Prover(open_backend("numpy", Choice(0, declare="h100_sxm")))
    device = prover.warm_up().device
    pair = [
        build_challenge(
            dataclasses.replace(context, device=device, instance_id=name), TEST, secret=b"s" * 32
        )
        for name in ("one", "two")
    ]
    firsts = [prover.answer_leg1(c.leg1) for c in pair]
    assert [f.digest for f in firsts] == [c.expected1 for c in pair]
    assert isinstance(prover.answer_leg2(pair[1].leg2), Answer)
    with pytest.raises(ProtocolViolation):
        prover.answer_leg2(pair[0].leg2)
