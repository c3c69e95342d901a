"""The verdict: two constant-time comparisons and two times against two deadlines.

Invariant: only two right answers, both in time, are accepted. A wrong or malformed answer is a
failure whatever its time; a missing or late one is inconclusive.
"""

import hmac
from collections.abc import Sequence

from graval.challenge import KEY_BYTES, Answer, Verdict
from graval.errors import Malformed, OutOfRange
from graval.timing import Deadlines
from graval.verifier.build import Challenge

SCOPES = ("node", "instance", "gpu")


def check(
    challenge: Challenge,
    answer1: bytes | None,
    answer2: bytes | None,
    leg1_us: int,
    leg2_us: int,
    deadlines: Deadlines,
    *,
    scope: str = "gpu",
) -> Verdict:
    """Judge the answers to a challenge.

    Args:
        challenge: as built.
        answer1: the canonical bytes of the `Answer` to leg 1, or its bare 32-byte digest; None
            when none came.
        answer2: likewise for leg 2.
        leg1_us: from sending leg 1 to the last byte of its answer, at the verifier's socket.
        leg2_us: likewise for leg 2; what it is does not matter where no answer came.
        deadlines: of this profile, class and round trip.
        scope: ``node``, ``instance`` or ``gpu``: what was challenged at the same time.

    Raises:
        OutOfRange: a negative time, or an unknown scope.
    """
    if leg1_us < 0 or leg2_us < 0 or scope not in SCOPES:
        raise OutOfRange("verdict", "times are not negative and the scope is a known one")
    outcome, reason = _judge(challenge, (answer1, answer2), (leg1_us, leg2_us), deadlines)
    device = challenge.leg1.context.device
    return Verdict(
        accepted=outcome == "accepted",
        outcome=outcome,
        reason=reason,
        leg1_us=leg1_us,
        leg2_us=leg2_us,
        deadline1_us=deadlines.leg1_us,
        deadline2_us=deadlines.leg2_us,
        gpu_class=device.short_name,
        gpu_uuid=device.uuid,
        profile=challenge.profile.name,
        rows=challenge.leg1.context.rows,
        stages=challenge.profile.stages,
        scope=scope,
        test=challenge.profile.name == "test" or device.stand_in,
        challenge_id=challenge.challenge_id,
    )


def _judge(
    challenge: Challenge,
    answers: tuple[bytes | None, bytes | None],
    times_us: tuple[int, int],
    deadlines: Deadlines,
) -> tuple[str, str]:
    expected = (challenge.expected1, challenge.expected2)
    due_us = (deadlines.leg1_us, deadlines.leg2_us)
    states = [
        _state(challenge.challenge_id, leg + 1, answers[leg], expected[leg]) for leg in (0, 1)
    ]
    for state in ("malformed", "wrong"):
        for leg in (0, 1):
            if states[leg] == state:
                return state, f"leg{leg + 1}_{state}"
    for leg in (0, 1):
        if states[leg] == "missing":
            return "late", f"leg{leg + 1}_missing"
        if times_us[leg] > due_us[leg]:
            return "late", f"leg{leg + 1}_late"
    return "accepted", ""


def _state(challenge_id: bytes, leg: int, answer: bytes | None, expected: bytes) -> str:
    if answer is None:
        return "missing"
    try:
        digest = answer_digest_of(challenge_id, leg, answer)
    except Malformed:
        return "malformed"
    return "right" if hmac.compare_digest(digest, expected) else "wrong"


def answer_digest_of(challenge_id: bytes, leg: int, answer: bytes) -> bytes:
    """The 32-byte digest of an answer: bare, or from the canonical bytes of an `Answer`.

    Raises:
        Malformed: neither of the two, or the answer to another challenge or leg.
    """
    if len(answer) == KEY_BYTES:
        return answer
    parsed = Answer.from_bytes(answer)
    if parsed.leg != leg or not hmac.compare_digest(parsed.challenge_id, challenge_id):
        raise Malformed("other_challenge", "this answers another challenge or leg")
    return parsed.digest


def session_key_material(answers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A1 | A2 of each GPU, in GPU index order: the secret part of a session's new keys.

    Args:
        answers: for each GPU index the two 32-byte digests.

    Raises:
        OutOfRange: no answers, or one that is not 32 bytes.
    """
    if not answers or any(len(digest) != KEY_BYTES for pair in answers for digest in pair):
        raise OutOfRange("answers", "each GPU brings two digests of 32 bytes")
    return b"".join(first + second for first, second in answers)
