import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.validator.gateway.usage import KEPT_BYTES, Tail, Tokens, claimed_tokens

USAGE = {"prompt_tokens": 7, "completion_tokens": 12, "total_tokens": 19}
WHOLE = json.dumps({"choices": [{"text": "a"}], "usage": USAGE, "prompt_logprobs": None}).encode()
SEEN = {"bytes_in": 10**6, "bytes_out": 10**6}


def events(*documents: object) -> bytes:
    lines = [b"data: " + json.dumps(one, separators=(",", ":")).encode() for one in documents]
    return b"\n\n".join([*lines, b"data: [DONE]", b""])


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        events({"choices": [], "usage": None}, {"choices": [], "usage": USAGE}),
        events({"usage": {"prompt_tokens": 7, "completion_tokens": 1}}, {"usage": USAGE}),
        events({"usage": USAGE}, {"choices": [], "usage": None}),
        b'{"usage" : \n {"a":"}\\"{","prompt_tokens":7,"completion_tokens":12}}',
    ],
)
def test_the_last_usage_object_is_found(answer: bytes):
    """Of a whole answer and of a stream; null and earlier counts do not hide it."""
    assert claimed_tokens(answer) == Tokens(7, 12)


def test_an_embedding_has_no_answer_in_tokens():
    """Where only the prompt is counted the answer counts as none."""
    assert claimed_tokens(b'{"usage":{"prompt_tokens":3,"total_tokens":3}}') == Tokens(3, 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b'{"choices":[]}',
        b'{"usage":null}',
        b'{"usage":{"prompt_tokens":-1,"completion_tokens":1}}',
        b'{"usage":{"prompt_tokens":true,"completion_tokens":1}}',
        b'{"usage":{"prompt_tokens":"9","completion_tokens":1}}',
        b'{"usage":{"prompt_tokens":1.5,"completion_tokens":1}}',
        b'{"usage":{"prompt_tokens":1,"completion_tokens":2',
        b'{"text":"he said \\"usage\\":{\\"prompt_tokens\\":1,\\"completion_tokens\\":1}"}',
        b'"usage":{' * 1000,
    ],
)
def test_what_is_no_usage_claims_nothing(answer: bytes):
    """Absent, null, negative, cut, or a text of the model's that looks like one."""
    assert claimed_tokens(answer) is None


def test_a_claim_is_capped_by_what_was_seen():
    """A token is at least a byte: of the request for the prompt, of the answer for the rest."""
    tail = Tail()
    tail.add(b'{"usage":{"prompt_tokens":1000000,"completion_tokens":%d}}' % 10**30)
    assert tail.tokens(bytes_in=40, bytes_out=700) is None  # no integer of this world
    tail = Tail()
    tail.add(b'{"usage":{"prompt_tokens":1000000,"completion_tokens":900000}}')
    assert tail.tokens(bytes_in=40, bytes_out=700) == Tokens(40, 700)


@settings(deadline=None)
@given(
    before=st.integers(0, 3 * KEPT_BYTES),
    cuts=st.lists(st.integers(0, 5000), max_size=40),
    after=st.integers(0, KEPT_BYTES // 2),
)
def test_however_an_answer_is_cut_its_usage_is_found(before: int, cuts: list[int], after: int):
    """The tail's memory is bounded, and its end is the answer's end byte for byte."""
    answer = b"x" * before + WHOLE + b" " * after
    tail, rest = Tail(), answer
    for cut in cuts:
        tail.add(rest[:cut])
        rest = rest[cut:]
        assert tail._size <= 2 * KEPT_BYTES
    tail.add(rest)
    assert b"".join(tail._pieces)[-KEPT_BYTES:] == answer[-KEPT_BYTES:]
    assert tail.tokens(**SEEN) == Tokens(7, 12)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_without_an_error(noise: bytes):
    """An instance may send what it likes."""
    claimed_tokens(noise)
    claimed_tokens(b'"usage":' + noise)
    claimed_tokens(b'"usage":{' + noise + b"}")
