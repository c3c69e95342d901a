"""A body's model under another name: whatever the body, nothing else of it changes."""

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.base.errors import Invalid
from chutes_core.validator.gateway.body import model_of
from chutes_core.validator.gateway.naming import MAX_MEMBERS, model_spans, renamed

SPELT = st.sampled_from(['"model"', '"m\\u006fdel"', '"\\u006Dodel"', '"mode\\u006c"'])
SPACE = st.sampled_from(["", " ", "\n\t", "\r\n  "])
TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ['"model":', '{"model":"x"', '"model', "\\", '\\"model":"', "}]", '"', "model", "é\\u006d"]
    ),
)
NUMBER = st.sampled_from(["1.0", "1e308", "-0", "123456789012345678901234567890", "0.1000"])


def object_of(value):
    member = st.tuples(SPELT | TEXT.map(json.dumps), SPACE, value)
    return st.lists(member, max_size=4).map(
        lambda them: "{" + ",".join(f"{name}{space}:{what}" for name, space, what in them) + "}"
    )


SPELLED = TEXT.map(json.dumps) | TEXT.map(lambda text: json.dumps(text, ensure_ascii=False))
VALUE = st.recursive(
    SPELLED | SPELT | NUMBER | st.sampled_from(["null", "true"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda them: f"[{','.join(them)}]") | object_of(inner)
    ),
    max_leaves=8,
)
OTHER = st.tuples(
    TEXT.filter(lambda text: text != "model").map(json.dumps), SPACE, SPACE, VALUE, SPACE
)
NAMED = st.tuples(SPELT, SPACE, SPACE, st.just("%"), SPACE)
NAME = st.text(max_size=12)


def written(members, model: str) -> bytes:
    """Return the object that has these members, ``%`` being the model."""
    said = json.dumps(model, ensure_ascii=False)
    parts = [
        f"{name}{one}:{two}{said if value == '%' else value}{three}"
        for name, one, two, value, three in members
    ]
    return ("{" + ",".join(parts) + "}").encode()


@settings(max_examples=400, deadline=None)
@given(st.lists(OTHER | NAMED, max_size=6), NAMED, st.permutations(range(7)), NAME, NAME, NAME)
def test_every_other_byte_stays(others, one, order, first, second, third):
    """Wherever it stands, however it is spelt, and once more for the next chute."""
    members = [*others, one]
    members = [members[i] for i in order if i < len(members)]
    body = written(members, first or "x")
    assert model_of(body) == (first or "x")
    for name in (second, third):
        spans = model_spans(body)
        body, moved = renamed(body, spans, name)
        assert body == written(members, name)
        assert moved == model_spans(body)
        assert orjson.loads(body)["model"] == name


def test_a_model_before_it_that_is_no_text_is_refused():
    """What some reader might take for the model must be one that can be replaced."""
    for value in (b"1", b"null", b'["a"]', b'{"model":"a"}'):
        with pytest.raises(Invalid, match="two members"):
            model_spans(b'{"model":%b,"model":"a"}' % value)


def test_the_work_is_bounded():
    """So many members of that name are told apart, and no more."""
    nested = b'{"model":1},'
    body = b'{"x":[%bnull],"model":"a"}'
    assert len(model_spans(body % (nested * (MAX_MEMBERS - 1)))) == 1
    with pytest.raises(Invalid, match="named model"):
        model_spans(body % (nested * MAX_MEMBERS))
