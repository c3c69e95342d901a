"""Schemas from type hints, and JSON to arguments."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from starlette.responses import Response
from typing_extensions import TypedDict

from chutes_core.base.errors import Invalid
from chutes_core.sdk.schemas import CallInput, InvalidInput, json_schema_of, output_type


class Prompt(BaseModel):
    text: str = Field(max_length=5)
    n: int = 1


@dataclass
class Point:
    x: int
    y: int


class Options(TypedDict):
    fast: bool


async def plain(self, text: str, n: int = 2): ...
async def model(self, prompt: Prompt): ...
async def untyped(self, anything): ...
async def open_ended(self, text: str, **rest: int): ...
async def reserved(self, schema: str, _x: int, model_config: int, copy: bool): ...


def test_several_parameters_become_an_object():
    """Each parameter is a property under its own name, defaults included."""
    schema = CallInput(plain).json_schema()
    assert schema["required"] == ["text"]
    assert {name: rule["type"] for name, rule in schema["properties"].items()} == {
        "text": "string",
        "n": "integer",
    }
    assert schema["properties"]["n"]["default"] == 2


def test_plain_body_and_call_give_the_same_arguments():
    """A plain body and an SDK call with positions or names lead to equal arguments."""
    call = CallInput(plain)
    expected = {"text": "a", "n": 3}
    assert call.from_body({"text": "a", "n": 3}) == expected
    assert call.from_call(["a", 3], {}) == expected
    assert call.from_call(["a"], {"n": 3}) == expected
    assert call.from_call(["a"], {}) == {"text": "a", "n": 2}


def test_a_single_model_is_the_whole_body():
    """One parameter of a model type takes the body itself, without its name around it."""
    call = CallInput(model)
    assert call.json_schema() == Prompt.model_json_schema()
    assert call.from_body({"text": "ab"}) == {"prompt": Prompt(text="ab")}
    assert call.from_call([{"text": "ab"}], {}) == {"prompt": Prompt(text="ab")}


@pytest.mark.parametrize(
    ("hint", "body", "value"),
    [
        (Point, {"x": 1, "y": 2}, Point(1, 2)),
        (Options, {"fast": True}, {"fast": True}),
        (dict, {"a": [1]}, {"a": [1]}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (Annotated[Prompt, "note"], {"text": "a"}, Prompt(text="a")),
    ],
)
def test_object_types_take_the_whole_body(hint, body, value):
    """Dataclasses, TypedDicts, dicts and annotated models count as the whole body, too."""

    async def function(self, given: hint): ...

    assert CallInput(function).from_body(body) == {"given": value}


def test_untyped_parameters_take_anything():
    """Without a hint any JSON value is passed on."""
    assert CallInput(untyped).from_body({"anything": [1, None]}) == {"anything": [1, None]}


def test_open_ended_functions_take_more_names():
    """**rest accepts names that are not listed."""
    call = CallInput(open_ended)
    assert call.from_body({"text": "a", "k": 1}) == {"text": "a", "k": 1}
    assert call.from_call(["a"], {"k": 1}) == {"text": "a", "k": 1}


def test_names_that_pydantic_reserves_are_ordinary_parameters():
    """No parameter name is off limits."""
    body = {"schema": "s", "_x": 1, "model_config": 2, "copy": True}
    assert CallInput(reserved).from_body(body) == body


@pytest.mark.parametrize(
    ("function", "body", "field"),
    [
        (plain, {"n": 1}, "text"),
        (plain, {"text": "a", "n": "x"}, "n"),
        (plain, {"text": "a", "more": 1}, "more"),
        (model, {"text": "far too long"}, "text"),
        (model, [], ""),
        (plain, "text", ""),
    ],
)
def test_a_mismatch_names_its_field(function, body, field):
    """What does not fit raises with the place in the body."""
    with pytest.raises(InvalidInput) as caught:
        CallInput(function).from_body(body)
    assert [item["loc"] for item in caught.value.fields] == [field]


@pytest.mark.parametrize(
    ("args", "kwargs"), [([1, 2, 3], {}), (["a"], {"text": "b"}), ([], {"z": 1})]
)
def test_a_call_that_the_signature_refuses(args, kwargs):
    """Too many, doubled or unknown arguments are invalid input, not a crash."""
    with pytest.raises(InvalidInput):
        CallInput(plain).from_call(args, kwargs)


async def takes_dict(self, given: dict): ...
async def takes_model(self, given: Prompt): ...
async def takes_any(self, given): ...
async def takes_fields(self, text: str, n: int): ...
async def takes_nothing(self): ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (takes_dict, {"given": {"text": "a", "n": 1}}),
        (takes_model, {"given": Prompt(text="a")}),
        (takes_any, {"given": Prompt(text="a")}),
        (takes_fields, {"text": "a", "n": 1}),
        (takes_nothing, {}),
    ],
)
def test_an_explicit_input_model_describes_the_body(function, expected):
    """input_schema=Model validates the body and gives the function what its hints ask for."""
    call = CallInput(function, Prompt)
    assert call.json_schema() == Prompt.model_json_schema()
    assert call.from_body({"text": "a"}) == expected
    with pytest.raises(InvalidInput):
        call.from_body({"text": "far too long"})


def test_output_schemas():
    """The return hint gives the schema; what JSON cannot say has none."""

    async def streamed(self) -> AsyncGenerator[Prompt, None]:
        yield Prompt(text="")

    async def raw(self) -> Response: ...

    assert json_schema_of(output_type(streamed, stream=True)) == Prompt.model_json_schema()
    assert json_schema_of(output_type(raw, stream=False)) is None
    assert json_schema_of(Any) is None
    assert json_schema_of(list[int]) == {"type": "array", "items": {"type": "integer"}}


def test_a_hint_that_cannot_be_resolved_says_which():
    """A hint on an unknown name is explained where the cord is declared."""

    async def function(self, x: "Nowhere"): ...  # noqa: F821 - the point of the test

    with pytest.raises(Invalid, match="Nowhere"):
        CallInput(function)
