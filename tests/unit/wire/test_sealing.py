"""Sealing: both sides agree, nothing else opens, and no keys repeat."""

import uuid

import pytest

from chutes_core.base.errors import ProtocolError
from chutes_core.wire.frames import (
    MAX_PAYLOAD_BYTES,
    FrameCodec,
    FrameKind,
    pack_leg,
    unpack_leg,
)
from chutes_core.wire.sealing import (
    PREAMBLE_BYTES,
    PROVEN,
    ConnectionKeys,
    KeyPair,
    Preamble,
    agree_root,
    open_at_rest,
    rekey_root,
    seal_at_rest,
)

LAUNCH = str(uuid.UUID(int=7))


def codecs(root=b"r" * 32):
    keys = ConnectionKeys.derive(root, validator_nonce=b"v" * 32, instance_nonce=b"i" * 32)
    return FrameCodec.for_validator(keys), FrameCodec.for_instance(keys)


def test_both_sides_agree_on_one_root():
    """The validator's and the instance's derivations meet, whoever computes them."""
    validator, instance = KeyPair.generate(), KeyPair.generate()
    ours = agree_root(
        validator, instance.public, launch_id=LAUNCH, validator_public=validator.public
    )
    theirs = agree_root(
        instance, validator.public, launch_id=LAUNCH, validator_public=validator.public
    )
    assert ours == theirs
    other = str(uuid.UUID(int=8))
    assert ours != agree_root(
        instance, validator.public, launch_id=other, validator_public=validator.public
    )


def test_a_degenerate_public_key_is_refused():
    """An all-zero X25519 key would make the shared secret known: it raises."""
    own = KeyPair.generate()
    with pytest.raises(ProtocolError) as caught:
        agree_root(own, bytes(32), launch_id=LAUNCH, validator_public=own.public)
    assert caught.value.code == "bad_public_key"


def test_the_second_root_depends_on_every_answer_byte():
    """After the proof, a wrong answer gives other keys."""
    root = rekey_root(b"r" * 32, b"a" * 64, launch_id=LAUNCH)
    assert root != rekey_root(b"r" * 32, b"a" * 63 + b"b", launch_id=LAUNCH)


def test_connection_keys_differ_by_nonce_and_direction():
    """Two connections under one root never share a key, nor do the two directions of one."""
    one = ConnectionKeys.derive(b"r" * 32, validator_nonce=b"1" * 32, instance_nonce=b"2" * 32)
    two = ConnectionKeys.derive(b"r" * 32, validator_nonce=b"1" * 32, instance_nonce=b"3" * 32)
    assert len({one.to_instance, one.to_validator, two.to_instance, two.to_validator}) == 4


def test_frames_arrive_in_order_however_they_are_cut():
    """A codec fed byte by byte yields the frames that were sealed."""
    sender, receiver = codecs()
    data = sender.seal(FrameKind.PING, b"a") + sender.seal(FrameKind.BODY, b"b" * 5000)
    frames = [frame for i in range(len(data)) for frame in receiver.feed(data[i : i + 1])]
    assert [(f.kind, f.payload) for f in frames] == [
        (FrameKind.PING, b"a"),
        (FrameKind.BODY, b"b" * 5000),
    ]


@pytest.mark.parametrize("position", [0, 3, 4, 5, 20])
def test_a_flipped_byte_never_opens(position):
    """Length, kind, payload and tag are all authenticated."""
    sender, receiver = codecs()
    data = bytearray(sender.seal(FrameKind.PING, b"payload"))
    data[position] ^= 1
    with pytest.raises(ProtocolError):
        receiver.feed(bytes(data) + bytes(300))


def test_a_repeated_frame_never_opens():
    """A recorded frame that is sent again does not authenticate: the counter has moved."""
    sender, receiver = codecs()
    data = sender.seal(FrameKind.PING)
    receiver.feed(data)
    with pytest.raises(ProtocolError):
        receiver.feed(data)


def test_a_frame_does_not_open_in_the_other_direction():
    """What a side sent cannot be reflected to it."""
    sender, _ = codecs()
    with pytest.raises(ProtocolError):
        sender.feed(sender.seal(FrameKind.PING))


def test_a_preamble_is_bound_to_its_ticket():
    """The relay accepts the holder of the ticket alone, and every byte counts."""
    preamble = Preamble.build(ticket=b"t" * 32, launch_id=LAUNCH, generation=PROVEN)
    data = preamble.to_bytes()
    assert len(data) == PREAMBLE_BYTES
    assert Preamble.parse(data) == preamble
    assert preamble.is_from(b"t" * 32)
    assert not preamble.is_from(b"u" * 32)
    for position in (4, 6, 25):
        changed = bytearray(data)
        changed[position] ^= 1
        assert not Preamble.parse(bytes(changed)).is_from(b"t" * 32)


def test_records_at_rest_are_bound_to_their_purpose():
    """A sealed record opens under its master key and purpose only, and never repeats."""
    sealed = seal_at_rest(b"m" * 32, b"secret", purpose="root:1")
    assert open_at_rest(b"m" * 32, sealed, purpose="root:1") == b"secret"
    assert sealed != seal_at_rest(b"m" * 32, b"secret", purpose="root:1")
    for master, purpose in ((b"m" * 32, "root:2"), (b"n" * 32, "root:1")):
        with pytest.raises(ProtocolError):
            open_at_rest(master, sealed, purpose=purpose)


def test_legs_carry_their_gpu_and_number():
    """pack_leg and unpack_leg are inverse, and a short payload raises."""
    assert unpack_leg(pack_leg(3, 2, b"xyz")) == (3, 2, b"xyz")
    with pytest.raises(ProtocolError):
        unpack_leg(b"\x00")


def test_a_frame_over_the_bound_is_neither_sent_nor_awaited():
    """The largest frame passes; one byte more is refused by its sender, and by its length alone."""
    ours, theirs = codecs()
    largest = b"x" * MAX_PAYLOAD_BYTES
    (frame,) = theirs.feed(ours.seal(FrameKind.BODY, largest))
    assert frame.payload == largest
    with pytest.raises(ProtocolError) as caught:
        ours.seal(FrameKind.BODY, largest + b"x")
    assert caught.value.code == "frame_too_large"
    with pytest.raises(ProtocolError) as caught:
        theirs.feed((MAX_PAYLOAD_BYTES + 18).to_bytes(4, "big"))
    assert caught.value.code == "bad_frame"
