"""Messages that are sent together: one seal for all, the same messages out, nothing else in."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chutes_core.base.errors import ProtocolError
from chutes_core.wire.frames import MAX_PAYLOAD_BYTES, FrameCodec, FrameKind
from chutes_core.wire.sealing import ConnectionKeys
from chutes_core.wire.together import (
    MAX_TOGETHER,
    TOGETHER,
    fits_together,
    pack_together,
    unpack_together,
)

SINGLE = [kind for kind in FrameKind if kind is not FrameKind.TOGETHER]
MESSAGES = st.lists(st.tuples(st.sampled_from(SINGLE), st.binary(max_size=200)), max_size=6)


def codecs() -> tuple[FrameCodec, FrameCodec]:
    keys = ConnectionKeys.derive(b"r" * 32, validator_nonce=b"v" * 32, instance_nonce=b"i" * 32)
    return FrameCodec.for_validator(keys), FrameCodec.for_instance(keys)


@given(groups=st.lists(MESSAGES, max_size=4), cut=st.integers(1, 50))
def test_what_is_sent_together_comes_out_as_single_frames_in_order(groups, cut):
    """However messages are grouped, and however their bytes are cut, the same frames come out."""
    validator, instance = codecs()
    data = b"".join(validator.seal_together(*group) for group in groups)
    found = []
    for at in range(0, len(data), cut):
        found += [(frame.kind, frame.payload) for frame in instance.feed(data[at : at + cut])]
    assert found == [message for group in groups for message in group]


def test_a_small_call_is_one_frame():
    """Three messages cost one length, one kind and one tag."""
    validator, _ = codecs()
    call = ((FrameKind.CALL, b"h"), (FrameKind.BODY, b"b"), (FrameKind.END, b""))
    assert len(validator.seal_together(*call)) == 4 + 1 + 16 + 3 * 5 + 2


def test_what_does_not_fit_into_one_frame_is_sent_as_several():
    """Neither the frame's bound nor the number of messages in it is ever exceeded."""
    validator, instance = codecs()
    large = [(FrameKind.BODY, bytes(MAX_PAYLOAD_BYTES)), (FrameKind.END, b"")]
    many = [(FrameKind.BODY, b"x")] * (MAX_TOGETHER + 1)
    assert not fits_together(large, MAX_PAYLOAD_BYTES)
    for group in (large, many):
        frames = instance.feed(validator.seal_together(*group))
        assert [(frame.kind, frame.payload) for frame in frames] == group


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x22",
        struct.pack(">BI", 34, 0),
        struct.pack(">BI", 34, 1) + struct.pack(">BI", 35, 0),
        pack_together([(34, b"a"), (35, b"")])[:-1],
        pack_together([(34, b"a"), (35, b"")]) + b"\x00",
        pack_together([(34, b"a"), (TOGETHER, pack_together([(34, b"a"), (35, b"")]))]),
        pack_together([(34, b"")] * (MAX_TOGETHER + 1)),
        pack_together([(34, b"a"), (35, b"")]) + struct.pack(">BI", 34, 2**32 - 1),
    ],
)
def test_a_frame_that_does_not_come_apart_is_refused(payload):
    """Cut short, nested, too few, too many: the connection is over."""
    with pytest.raises(ProtocolError) as caught:
        unpack_together(payload)
    assert caught.value.code == "bad_frame"
    validator, instance = codecs()
    with pytest.raises(ProtocolError):
        instance.feed(validator.seal(FrameKind.TOGETHER, payload))


@given(payload=st.binary(max_size=100))
def test_any_bytes_are_messages_or_a_protocol_error(payload):
    """Nothing that a peer puts into the frame ends in another error."""
    try:
        messages = unpack_together(payload)
    except ProtocolError:
        return
    assert pack_together(messages) == payload


def test_an_unknown_kind_inside_is_refused():
    """A message of a kind that does not exist is refused as one alone is."""
    validator, instance = codecs()
    with pytest.raises(ProtocolError):
        instance.feed(validator.seal(FrameKind.TOGETHER, pack_together([(34, b""), (99, b"")])))
