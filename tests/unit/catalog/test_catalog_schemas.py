"""Schemas that would harm whoever reads them are refused; ordinary ones are not."""

import pytest
from pydantic import BaseModel

from chutes_core.base.errors import ChutesError
from chutes_core.validator.catalog.schemas import check_schema


class Tree(BaseModel):
    """A model that holds itself, as real ones do."""

    name: str = "x"
    children: list["Tree"] = []


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(levels):
    """Return a schema of a few lines that unfolds to 2 ** levels parts."""
    defs = {
        f"L{n}": {"allOf": [{"$ref": f"#/$defs/L{n + 1}"}, {"$ref": f"#/$defs/L{n + 1}"}]}
        for n in range(levels)
    }
    return {"$ref": "#/$defs/L0", "$defs": defs | {f"L{levels}": {"type": "string"}}}


def chained(length):
    defs = {f"L{n}": {"$ref": f"#/$defs/L{n + 1}"} for n in range(length)}
    return {"$ref": "#/$defs/L0", "$defs": defs}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        nested(60),
        doubling(10),
        chained(50),
        Tree.model_json_schema(),
        {"$ref": "#"},
        {"$ref": "#/$defs/gone"},
        {"properties": {"$ref": {"type": "string"}, "default": {"$ref": "#"}}},
        {"default": {"$ref": "anything"}, "const": "http://x"},
    ],
)
def test_ordinary_schemas_pass(schema):
    """Recursive models, shared definitions and data that looks like a reference are legal."""
    check_schema(schema, "input_schema of cord f")


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        (nested(64), "schema_too_deep"),
        (nested(900), "schema_too_deep"),
        (doubling(20), "schemas_too_large"),
        (doubling(60), "schemas_too_large"),
        (chained(5_000), "schema_too_deep"),
        ({"items": {"$ref": "http://169.254.169.254/latest"}}, "bad_schema_ref"),
        ({"properties": {"default": {"$ref": "file:///etc/passwd"}}}, "bad_schema_ref"),
        ({"$dynamicRef": "other.json#/x"}, "bad_schema_ref"),
    ],
)
def test_bombs_and_references_elsewhere_are_refused(schema, code):
    """A few lines that unfold to a million, endless depth, and files or addresses of others."""
    with pytest.raises(ChutesError) as refused:
        check_schema(schema, "input_schema of cord f")
    assert refused.value.code == code
    assert refused.value.hint
