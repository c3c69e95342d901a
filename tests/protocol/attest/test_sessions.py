"""Attestation over real sockets: honest instances pass, every kind of dishonest one is told why."""

import socket

import pytest

from chutes_core.validator.attest.sessions import system_monotonic_us
from chutes_core.validator.domain.launches import Reason
from chutes_core.validator.domain.verdicts import ClaimedGpu
from chutes_core.wire.control import Handshake
from chutes_core.wire.frames import FrameKind, pack_leg
from chutes_core.wire.sealing import KeyPair
from tests.protocol.attest.instances import Instance, attest


def assert_refused(outcome, reason):
    assert outcome.root is None
    assert not outcome.proof.accepted
    assert outcome.reason is reason
    assert outcome.detail


def test_an_honest_instance_is_accepted_and_both_sides_hold_the_same_new_root():
    """The proof names its figures, and the root depends on the answers."""
    outcome, instance = attest()
    assert outcome.proof.accepted
    assert outcome.reason is Reason.NONE
    assert outcome.root == instance.rekeyed != instance.root
    gpu = outcome.proof.gpus[0]
    assert 0 < gpu.leg1_us <= gpu.deadline1_us
    assert 0 < gpu.leg2_us <= gpu.deadline2_us
    assert outcome.proof.test


def test_all_gpus_fill_before_any_scans():
    """The barrier: both first legs are sent before a second one."""
    outcome, instance = attest(gpus=2)
    assert outcome.proof.accepted
    assert [leg for leg, _ in instance.order] == [1, 1, 2, 2]
    assert len(outcome.proof.gpus) == 2


@pytest.mark.parametrize("leg", [1, 2])
@pytest.mark.parametrize("position", [0, 31])
def test_one_flipped_bit_of_an_answer_is_a_failure(leg, position):
    """Whatever byte of whichever leg: proof_wrong, and no new root."""

    class Flips(Instance):
        def answer(self, index, asked, body):
            digest = bytearray(super().answer(index, asked, body))
            if asked == leg:
                digest[position] ^= 1
            return bytes(digest)

    assert_refused(attest(Flips)[0], Reason.PROOF_WRONG)


def test_the_answer_of_another_challenge_is_a_failure():
    """A digest that was right for another challenge is wrong here."""
    _, earlier = attest()

    class Replays(Instance):
        def answer(self, index, leg, body):
            return earlier.answers[(index, leg)]

    assert_refused(attest(Replays)[0], Reason.PROOF_WRONG)


def test_answers_swapped_between_gpus_are_a_failure():
    """Each GPU's challenge has its own seed, so one cannot answer for the other."""

    class Swaps(Instance):
        def frames_for(self, index, leg, digest):
            return [(FrameKind.ANSWER, pack_leg(1 - index, leg, digest))]

    assert_refused(attest(Swaps, gpus=2)[0], Reason.PROOF_WRONG)


def test_a_late_answer_is_refused_as_late():
    """The answer is right, but the clock at the validator's socket says it came too late."""
    late = {"us": 0}

    def clock():
        return system_monotonic_us() + late["us"]

    class Late(Instance):
        def answer(self, index, leg, body):
            digest = super().answer(index, leg, body)
            if leg == 2:
                late["us"] = 60_000_000
            return digest

    outcome, _ = attest(Late, now_us=clock)
    assert_refused(outcome, Reason.PROOF_LATE)


def test_a_missing_first_leg_keeps_the_second_from_being_sent():
    """Without all first answers the barrier stays shut."""
    late = {"us": 0}

    class Silent(Instance):
        def frames_for(self, index, leg, digest):
            if index == 1:
                late["us"] = 60_000_000
                return []
            return super().frames_for(index, leg, digest)

    outcome, instance = attest(Silent, gpus=2, now_us=lambda: system_monotonic_us() + late["us"])
    assert_refused(outcome, Reason.PROOF_LATE)
    assert all(leg == 1 for leg, _ in instance.order)


@pytest.mark.parametrize(
    "frames",
    [
        lambda i, leg, digest: [(FrameKind.ANSWER, pack_leg(i, leg, digest[:31]))],
        lambda i, leg, digest: [(FrameKind.ANSWER, pack_leg(i, 3 - leg, digest))],
        lambda i, leg, digest: [(FrameKind.ANSWER, pack_leg(7, leg, digest))],
    ],
    ids=["short", "other leg", "other gpu"],
)
def test_an_answer_that_does_not_fit_its_leg_is_malformed(frames):
    """Length, leg and GPU index must fit."""

    class Malformed(Instance):
        def frames_for(self, index, leg, digest):
            return frames(index, leg, digest)

    assert_refused(attest(Malformed)[0], Reason.PROOF_MALFORMED)


def test_a_provers_error_is_passed_on():
    """The miner reads in the detail what its prover said."""

    class Fails(Instance):
        def frames_for(self, index, leg, digest):
            return [(FrameKind.ERROR, b'{"code":"prover_oom","message":"no memory"}')]

    outcome, _ = attest(Fails)
    assert_refused(outcome, Reason.PROTOCOL)
    assert "prover_oom: no memory" in outcome.detail


def test_a_stand_in_is_refused_where_the_chain_is_no_devnet():
    """Test proofs count on a devnet only, and the instance is not even challenged."""
    outcome, instance = attest(devnet=False)
    assert_refused(outcome, Reason.TEST_PROOF_REFUSED)
    assert instance.order == []


@pytest.mark.parametrize(
    "claim",
    [
        ClaimedGpu("GPU-0", 0, "h200", True),
        ClaimedGpu("GPU-0", 0, "h100_sxm", False),
    ],
    ids=["another class", "a stand-in passed off as real"],
)
def test_a_device_that_differs_from_its_claim_is_refused(claim):
    """The detail names the field that disagrees."""
    outcome, instance = attest(claims=(claim,))
    assert_refused(outcome, Reason.CLAIMS_DISAGREE)
    assert "differs in" in outcome.detail
    assert instance.order == []


def test_fewer_devices_than_claimed_are_refused():
    """Two GPUs claimed, one prover there."""

    class Missing(Instance):
        def warm(self):
            return super().warm().model_copy(update={"devices": tuple(self.devices[:1])})

    assert_refused(attest(Missing, gpus=2)[0], Reason.CLAIMS_DISAGREE)


def test_a_runner_of_an_older_protocol_is_refused_before_it_gets_a_call():
    """It would not understand what is sent together: its image is to be built again."""

    class Old(Instance):
        def warm(self):
            old = Handshake(protocol_min=1, protocol_max=1, version="0.0.1")
            return super().warm().model_copy(update={"handshake": old})

    outcome, _ = attest(Old)
    assert_refused(outcome, Reason.PROTOCOL)
    assert "build the image again" in outcome.detail


def test_an_instance_with_another_key_cannot_speak_at_all():
    """The connection's keys come from the announced public key: a man in the middle has others."""
    other = KeyPair.generate().public
    assert_refused(attest(instance_public_key=other)[0], Reason.UNREACHABLE)


def test_an_unreachable_relay_is_an_outcome_not_an_exception():
    """Nobody listens: unreachable."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert_refused(attest(port=port)[0], Reason.UNREACHABLE)


def test_the_rekeying_must_be_confirmed():
    """An instance that passes but then says something else has no root."""

    class Refuses(Instance):
        def reply(self, frame):
            if frame.kind is FrameKind.REKEY:
                return [(FrameKind.PONG, b"")]
            return super().reply(frame)

    outcome, _ = attest(Refuses)
    assert outcome.root is None
    assert outcome.reason is Reason.PROTOCOL


def test_hanging_up_on_a_challenge_is_late():
    """Who is challenged and closes the connection has not answered in time."""

    class HangsUp(Instance):
        def frames_for(self, index, leg, digest):
            raise OSError("the miner pulls the plug")

    assert_refused(attest(HangsUp)[0], Reason.PROOF_LATE)
