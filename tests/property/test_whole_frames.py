"""Frames of whole calls and answers: the short way makes and reads what the general one does."""

import contextlib

import orjson
from hypothesis import given
from hypothesis import strategies as st

from chutes_core.base.errors import ProtocolError
from chutes_core.validator.gateway.records import encode_fields, encode_rest, opening, scan
from chutes_core.wire.together import (
    MAX_TOGETHER,
    TOGETHER,
    frame_of_three,
    frame_of_two,
    pack_together,
    three_of,
    unpack_together,
)

KINDS = st.integers(0, 255)
PAYLOADS = st.binary(max_size=40)
MESSAGES = st.lists(st.tuples(KINDS, PAYLOADS), max_size=5)


@given(KINDS, PAYLOADS, KINDS, PAYLOADS, KINDS)
def test_a_call_is_packed_like_any_other_messages(one, payload, two, more, last) -> None:
    """What `frame_of_three` and `frame_of_two` write is what `pack_together` writes."""
    first = bytes([TOGETHER])
    three = first + pack_together([(one, payload), (two, more), (last, b"")])
    assert frame_of_three(one, payload, two, more, last) == three
    assert frame_of_two(one, payload, last) == first + pack_together([(one, payload), (last, b"")])


@given(MESSAGES, st.binary(max_size=12), st.integers(0, 30))
def test_three_messages_are_read_alike_or_left_to_the_general_way(messages, behind, cut) -> None:
    """`three_of` reads nothing that `unpack_together` refuses or reads in another way."""
    whole = bytes([TOGETHER]) + pack_together(messages) + behind
    plain = whole[: len(whole) - cut] or whole
    taken = three_of(plain)
    read = None
    with contextlib.suppress(ProtocolError):
        read = unpack_together(plain, 1)
    if taken is not None:
        assert read == list(zip(taken[::2], taken[1::2], strict=True))
    elif read is not None:
        assert len(read) != 3
    assert MAX_TOGETHER >= 3


@given(st.text(max_size=20), st.integers(1, 2**63), st.binary(max_size=20))
def test_a_record_that_is_put_together_is_the_one_that_is_encoded(worker, sequence, text) -> None:
    """The bytes of a record do not depend on how its JSON was made."""
    fields = {"worker": worker, "sequence": sequence, "invocation_id": text.hex(), "n": 1}
    rest = b',"invocation_id":"%b","n":1}' % text.hex().encode()
    record = encode_rest(opening(worker), sequence, rest)
    assert record == encode_fields(fields, sequence)
    (read,) = scan(record, sequence)
    assert orjson.loads(read.body) == fields
