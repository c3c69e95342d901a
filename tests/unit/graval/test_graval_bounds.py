"""What graval refuses by its size: messages, and challenges with too many stages."""

from dataclasses import replace

import pytest

from graval.errors import OutOfRange, ProtocolViolation
from graval.messages import MAX_BODY_BYTES, Decoder, Kind, Message, encode
from graval.profile import MAX_STAGES, PROFILES


def test_a_message_over_the_bound_is_neither_sent_nor_awaited():
    """The largest passes; one byte more is refused by its sender, and by its header alone."""
    largest = Message(Kind.ANSWER, b"x" * MAX_BODY_BYTES)
    assert Decoder().feed(encode(largest)) == [largest]
    with pytest.raises(ProtocolViolation, match="too_large"):
        encode(Message(Kind.ANSWER, b"x" * (MAX_BODY_BYTES + 1)))
    with pytest.raises(ProtocolViolation, match="too_large"):
        Decoder().feed((MAX_BODY_BYTES + 1).to_bytes(4, "big") + bytes([Kind.ANSWER]))


def test_a_challenge_has_so_many_stages_and_no_more():
    """A profile with more is refused where it is made, on either side."""
    profile = PROFILES["test"]
    assert replace(profile, stages=MAX_STAGES).stages == MAX_STAGES
    with pytest.raises(OutOfRange, match="stages"):
        replace(profile, stages=MAX_STAGES + 1)
