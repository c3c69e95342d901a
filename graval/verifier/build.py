"""Building a challenge: all needles, tags and expected answers, before anything is sent.

Cost: one SGEMM chain over the needles' rows (144 to 336 rows), a few tens of milliseconds on two
cores at T = 8. It holds the CPU all that time: call it off the event loop.

Invariant: a challenge is a function of (context, profile, secret) alone; `audit` repeats it.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graval import prf
from graval.canonical import Canonical
from graval.challenge import KEY_BYTES, Leg1, Leg2, SeedContext, derive_seed
from graval.errors import OutOfRange
from graval.profile import Profile
from graval.verifier.draw import Draw, StagePlan, commit


@dataclass(frozen=True)
class ChallengeRecord(Canonical):
    """What is published for an audit, together with the revealed secret."""

    TAG: ClassVar[str] = "record"

    profile: Profile
    leg1: Leg1
    leg2: Leg2
    expected1: bytes
    expected2: bytes


@dataclass(frozen=True)
class Challenge:
    """One GPU's challenge, complete with the answers that it must bring.

    `reveal` is the secret: it may be published only when the session no longer uses keys made of
    these answers. `repr` shows neither it nor the answers.
    """

    profile: Profile
    leg1: Leg1
    leg2: Leg2
    expected1: bytes
    expected2: bytes
    commitment: bytes
    reveal: bytes

    def __repr__(self) -> str:
        return f"Challenge({self.leg1.challenge_id.hex()[:16]}, {self.profile.name})"

    @property
    def challenge_id(self) -> bytes:
        """32 bytes that name this challenge."""
        return self.leg1.challenge_id

    def record(self) -> ChallengeRecord:
        """What an auditor needs beside the revealed secret."""
        return ChallengeRecord(self.profile, self.leg1, self.leg2, self.expected1, self.expected2)


def build_challenge(context: SeedContext, profile: Profile, *, secret: bytes) -> Challenge:
    """Build both legs and both expected answers of one GPU's challenge.

    Args:
        context: what the seed binds; its profile_name must be the profile's name.
        profile: the amount of work, stages already stretched to the round trip.
        secret: 32 to 64 fresh random bytes; GPUs that are challenged together may share one (their
            seeds differ), two attestations never.

    Raises:
        OutOfRange: context and profile disagree, or there are fewer rows than tag slots.
    """
    if context.profile_name != profile.name:
        raise OutOfRange("profile_name", "the context names another profile")
    if context.rows < profile.tags_per_stage:
        raise OutOfRange("rows", "a fill needs at least as many rows as a stage has tags")
    seed = derive_seed(context, profile.layers)
    draw = Draw(secret, seed)
    plan1, plan2 = _plans(draw, context.rows, profile)
    rows = _Rows(seed, profile.layers, [*plan1, *plan2])

    key1 = draw.stream("leg1 key").take(KEY_BYTES)
    tags1, end1 = _chain(key1, plan1, rows)
    commitment = commit(secret)
    leg1 = Leg1(context, profile.layers, commitment, key1, tags1)

    key2 = draw.stream("leg2 key").take(KEY_BYTES)
    tags2, end2 = _chain(key2, plan2, rows)
    leg2 = Leg2(leg1.challenge_id, key2, tags2)
    return Challenge(
        profile=profile,
        leg1=leg1,
        leg2=leg2,
        expected1=prf.answer_digest(end1, seed, leg1.to_bytes()),
        expected2=prf.answer_digest(end2, seed, leg2.to_bytes()),
        commitment=commitment,
        reveal=secret,
    )


def audit(record: ChallengeRecord, revealed_secret: bytes) -> bool:
    """Whether a published challenge is the one that its revealed secret makes.

    True means: the secret is the committed one, every needle, slot and decoy was drawn from it by
    the public rule, and the expected answers are right. An auditor reads `record.profile` himself.
    """
    try:
        rebuilt = build_challenge(record.leg1.context, record.profile, secret=revealed_secret)
    except OutOfRange:
        return False
    return hmac.compare_digest(rebuilt.record().to_bytes(), record.to_bytes())


def _plans(draw: Draw, rows: int, profile: Profile) -> tuple[list[StagePlan], list[StagePlan]]:
    slots = profile.tags_per_stage
    one = (profile.leg1_real, profile.leg1_real)
    many = (profile.min_real, profile.max_real)
    leg1 = [draw.stage("leg1 stage 0", rows=rows, slots=slots, real=one)]
    leg2 = [
        draw.stage(f"leg2 stage {s}", rows=rows, slots=slots, real=many)
        for s in range(profile.stages)
    ]
    return leg1, leg2


class _Rows:
    """The needles' rows of all stages, computed in one batch: SGEMM likes it."""

    def __init__(self, seed: bytes, layers: int, plans: Sequence[StagePlan]) -> None:
        indices = sorted({i for plan in plans for i in plan.needles})
        self._at = {index: at for at, index in enumerate(indices)}
        self._rows = prf.RowFunction(prf.fill_key(seed, layers)).rows(indices)

    def of(self, plan: StagePlan) -> prf.I8:
        """int8 (m, N): the rows of a plan's needles, in their order."""
        return self._rows[[self._at[i] for i in plan.needles]]


def _chain(key: bytes, plans: Sequence[StagePlan], rows: _Rows) -> tuple[tuple[bytes, ...], bytes]:
    """The tags of each stage as sent, and the key after the last stage."""
    sent = []
    for plan in plans:
        found = rows.of(plan)
        tags = prf.tags_from_bytes(plan.decoys)  # (slots,)
        asked = prf.query(key, len(tags))
        real = np.asarray(plan.slots)
        tags[real] = prf.row_tags(asked, found) ^ asked.masks[real]
        sent.append(prf.tags_to_bytes(tags))
        key = prf.next_key(key, plan.needles, found)
    return tuple(sent), key
