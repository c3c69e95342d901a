"""Canonical bytes and frames: one value, one encoding, and nothing else is accepted."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graval import messages
from graval.challenge import Answer, DeviceInfo, Leg1, Leg2, SeedContext
from graval.errors import GravalError, Malformed, ProtocolViolation
from graval.messages import Decoder, ErrorReport, Kind, Message, RowsFor, Warm

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
u64 = st.integers(0, (1 << 64) - 1)
key = st.binary(min_size=32, max_size=32)
devices = st.builds(
    DeviceInfo, text, text, text, u64, u64, text, u64, u64, text, text,
    st.booleans(), st.booleans(), text, st.booleans(),
)  # fmt: skip
contexts = st.builds(
    SeedContext, st.binary(min_size=16, max_size=64), text, text, text, text, key,
    st.just(0), st.integers(1, 64), devices, text, st.integers(1, 1 << 32), u64,
)  # fmt: skip
tags = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.binary(min_size=8 * n, max_size=8 * n), min_size=1, max_size=4).map(tuple)
)
values = st.one_of(
    devices,
    contexts,
    st.builds(Leg1, contexts, st.integers(1, 64), key, key, tags),
    st.builds(Leg2, key, key, tags),
    st.builds(Answer, key, st.integers(1, 2), key),
    st.builds(Warm, devices, st.lists(st.builds(RowsFor, text, u64), max_size=4).map(tuple)),
    st.builds(ErrorReport, text, text, text),
)


@given(values)
def test_canonical_bytes_round_trip(value):
    """Every value is its own bytes' value."""
    assert type(value).from_bytes(value.to_bytes()) == value


@given(values, st.binary(min_size=1, max_size=8))
def test_trailing_bytes_are_refused(value, tail):
    """Nothing may follow the last field."""
    with pytest.raises(Malformed):
        type(value).from_bytes(value.to_bytes() + tail)


@given(values, st.integers(min_value=1))
def test_missing_bytes_are_refused(value, cut):
    """No prefix of a value's bytes is a value."""
    data = value.to_bytes()
    with pytest.raises(Malformed):
        type(value).from_bytes(data[: -(cut % len(data) or 1)])


@given(values, st.integers(min_value=0), st.integers(0, 7))
def test_a_flipped_bit_is_another_value_or_none(value, position, bit):
    """Two encodings never mean the same value."""
    data = bytearray(value.to_bytes())
    data[position % len(data)] ^= 1 << bit
    try:
        other = type(value).from_bytes(bytes(data))
    except Malformed:
        return
    assert other != value
    assert other.to_bytes() == bytes(data)


@given(st.binary(max_size=300))
def test_junk_is_malformed_not_a_crash(data):
    """Any bytes raise the one typed error or are a value."""
    for kind in (DeviceInfo, SeedContext, Leg1, Leg2, Answer, Warm):
        with pytest.raises(GravalError):
            kind.from_bytes(data)


@given(
    st.lists(st.builds(Message, st.sampled_from(list(Kind)), st.binary(max_size=40)), max_size=5),
    st.lists(st.integers(1, 20), max_size=30),
)
def test_frames_survive_any_chunking(sent, sizes):
    """The decoder yields the same messages however the stream is cut."""
    data = b"".join(messages.encode(m) for m in sent)
    decoder, got, rest = Decoder(), [], data
    for size in [*sizes, len(data)]:
        got += decoder.feed(rest[:size])
        rest = rest[size:]
    decoder.finish()
    assert got == sent
    stream = io.BytesIO(data)
    assert [messages.read(stream) for _ in sent] == sent
    assert messages.read(stream) is None


def test_bad_frames_are_protocol_violations():
    """Too large, of unknown kind, or cut off: each is refused by its own code."""
    huge = (messages.MAX_BODY_BYTES + 1).to_bytes(4, "big") + b"\x01"
    for data, code in ((huge, "too_large"), (b"\0\0\0\0\x63", "unknown_kind")):
        with pytest.raises(ProtocolViolation) as caught:
            Decoder().feed(data)
        assert caught.value.code == code
    with pytest.raises(ProtocolViolation):
        messages.encode(Message(Kind.LEG1, bytes(messages.MAX_BODY_BYTES + 1)))
    for cut in (3, 7):
        with pytest.raises(ProtocolViolation):
            messages.read(io.BytesIO(messages.encode(Message(Kind.LEG1, b"body"))[:cut]))
    decoder = Decoder()
    decoder.feed(b"\0")
    with pytest.raises(ProtocolViolation):
        decoder.finish()


def test_values_outside_their_type_are_refused():
    """Integers are unsigned 64-bit, text is encodable, lengths are checked when a value is made."""
    for bad in (-1, 1 << 64, True, "1"):
        with pytest.raises(Malformed):
            RowsFor("test", bad).to_bytes()
    with pytest.raises(Malformed):
        RowsFor("\ud800", 1).to_bytes()
    with pytest.raises(Malformed):
        Answer(bytes(31), 1, bytes(32))
    with pytest.raises(Malformed):
        Leg2(bytes(32), bytes(32), (bytes(8), bytes(16)))
