"""check: what is accepted, what is wrong, what is inconclusive."""

import pytest

from graval.challenge import Answer, Verdict
from graval.errors import OutOfRange
from graval.params import PROFILES, deadlines, reference
from graval.verifier import Barrier, audit, build_challenge, check, session_key_material

DUE = deadlines(PROFILES["test"], reference("h100_sxm", "test"), rtt_us=400)


def judge(challenge, answers, leg1_us=1000, leg2_us=1000):
    return check(challenge, *answers, leg1_us, leg2_us, DUE)


def test_an_honest_prover_is_accepted(challenge, honest):
    """Two right answers in time are accepted, and the verdict says that it is a test proof."""
    verdict = judge(challenge, honest)
    assert (verdict.accepted, verdict.outcome, verdict.reason) == (True, "accepted", "")
    assert verdict.test
    assert verdict.gpu_class == "h100_sxm"
    assert Verdict.from_bytes(verdict.to_bytes()) == verdict


def test_bare_digests_are_answers_too(challenge, honest):
    """An answer may come as its 32 bytes alone, as the sealed connection carries it."""
    bare = [Answer.from_bytes(a).digest for a in honest]
    assert judge(challenge, bare).accepted


@pytest.mark.parametrize("leg", [0, 1])
def test_a_late_right_answer_is_inconclusive(challenge, honest, leg):
    """One microsecond over the deadline is late: not accepted, not failed; on it is in time."""
    due = [DUE.leg1_us, DUE.leg2_us]
    assert judge(challenge, honest, *due).accepted
    due[leg] += 1
    verdict = judge(challenge, honest, *due)
    assert (verdict.outcome, verdict.reason) == ("late", f"leg{leg + 1}_late")
    assert not verdict.accepted
    assert verdict.inconclusive
    assert not verdict.failed


@pytest.mark.parametrize("leg", [0, 1])
def test_a_missing_answer_is_inconclusive(challenge, honest, leg):
    """No answer shows nothing either way."""
    answers = list(honest)
    answers[leg] = None
    verdict = judge(challenge, answers)
    assert verdict.inconclusive
    assert verdict.reason == f"leg{leg + 1}_missing"


def test_a_wrong_answer_fails_even_when_it_is_late(challenge, honest):
    """Lateness never turns a wrong answer into an inconclusive one."""
    wrong = Answer(challenge.challenge_id, 2, bytes(32)).to_bytes()
    verdict = judge(challenge, (honest[0], wrong), leg1_us=DUE.leg1_us + 1, leg2_us=10**9)
    assert (verdict.outcome, verdict.reason, verdict.failed) == ("wrong", "leg2_wrong", True)


def test_answers_of_the_other_leg_are_refused(challenge, honest):
    """Swapped answers are malformed when they name their leg, and wrong when they do not."""
    assert judge(challenge, honest[::-1]).outcome == "malformed"
    bare = [Answer.from_bytes(a).digest for a in honest]
    assert judge(challenge, bare[::-1]).outcome == "wrong"


def test_answers_to_another_challenge_are_refused(challenge, honest, context, replace):
    """A replay fails: another nonce is another challenge."""
    other = build_challenge(replace(context, nonce=b"m" * 32), PROFILES["test"], secret=b"s" * 32)
    assert judge(other, honest).outcome == "malformed"
    assert judge(other, [Answer.from_bytes(a).digest for a in honest]).outcome == "wrong"


def test_answers_of_another_gpu_are_refused(challenge, honest, context, replace):
    """GPUs challenged together have seeds of their own: answers cannot be swapped."""
    two = replace(context, gpu_count=2)
    pair = [
        build_challenge(replace(two, gpu_index=i), PROFILES["test"], secret=b"s" * 32)
        for i in (0, 1)
    ]
    assert not judge(pair[0], (pair[1].expected1, pair[1].expected2)).accepted
    assert judge(pair[0], (pair[0].expected1, pair[0].expected2)).accepted


def test_times_and_scopes_are_checked(challenge, honest):
    """A negative time is a caller's mistake, not a verdict."""
    with pytest.raises(OutOfRange):
        judge(challenge, honest, leg1_us=-1)
    with pytest.raises(OutOfRange):
        check(challenge, *honest, 1, 1, DUE, scope="planet")


def test_an_audit_repeats_the_choice_of_needles(challenge, replace):
    """The revealed secret rebuilds the published challenge; another secret or tag does not."""
    record = challenge.record()
    assert audit(record, challenge.reveal)
    assert not audit(record, b"t" * 32)
    assert not audit(record, b"short")
    tags = record.leg2.tags
    picked = replace(record, leg2=replace(record.leg2, tags=(bytes(len(tags[0])), *tags[1:])))
    assert not audit(picked, challenge.reveal)


def test_a_challenge_does_not_print_its_secrets(challenge):
    """repr shows neither the secret nor the answers."""
    assert "sss" not in repr(challenge)
    assert challenge.expected1.hex() not in repr(challenge)


def test_session_keys_take_all_answers_in_gpu_order():
    """A1 | A2 of GPU 0, then of GPU 1; anything but 32-byte digests is refused."""
    a, b, c, d = (bytes([n]) * 32 for n in range(4))
    assert session_key_material([(a, b), (c, d)]) == a + b + c + d
    for bad in ([], [(a, b"short")]):
        with pytest.raises(OutOfRange):
            session_key_material(bad)


def test_the_barrier_opens_when_all_have_answered():
    """Leg 2 waits for the last GPU's leg 1."""
    barrier = Barrier(2, sent_us=100, deadline_us=50)
    barrier.answered(1)
    assert not barrier.is_open(120)
    assert barrier.waiting == {0}
    barrier.answered(0)
    assert barrier.is_open(120)


def test_the_barrier_opens_when_the_deadline_has_passed():
    """A GPU that never answers does not hold the others for ever."""
    barrier = Barrier(2, sent_us=100, deadline_us=50)
    assert not barrier.is_open(149)
    assert barrier.is_open(150)
    with pytest.raises(OutOfRange):
        Barrier(0, sent_us=0, deadline_us=1)


def test_a_context_of_another_profile_or_too_few_rows_is_refused(context, replace):
    """A challenge is never built from parts that do not fit."""
    for bad in (replace(context, profile_name="light"), replace(context, rows=10)):
        with pytest.raises(OutOfRange):
            build_challenge(bad, PROFILES["test"], secret=b"s" * 32)
    with pytest.raises(OutOfRange):
        build_challenge(context, PROFILES["test"], secret=b"short")
