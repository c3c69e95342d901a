"""The schemas that the API shows of a cord: the documents that the public SDK makes.

They describe a cord's arguments by name: ``{"type": "object", "properties": {argument: schema},
"required": [every argument], "definitions": {model: its schema}}``. What a call is checked against
stands in schemas.py and is stricter. Invariant: a pure function of the hints; the same chute file
gives the same document here and in the public SDK (tests/unit/sdk/test_public_parity.py).

Rules read off the public SDK 0.6.x (shared/PUBLIC_API, Chute files): a pydantic model becomes a
reference into ``definitions``, keeps its own ``$defs`` and loses its title; an optional type says
``nullable``; other unions, also those written with ``|``, say ``oneOf`` or nothing; a type without
a rule becomes ``{}``.
"""

import inspect
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, Union

from pydantic import BaseModel

Schema = dict[str, Any]

_REF = "#/definitions/{model}"
_PLAIN: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    list: {"type": "array", "items": {}},
    dict: {"type": "object"},
    None: {"type": "null"},
}
_ENUM_TYPES: tuple[tuple[type, str], ...] = ((str, "string"), (int, "integer"), (float, "number"))


def of_function(function: Callable[..., Any]) -> tuple[Schema, Schema | None]:
    """Return the schemas of a function's arguments and of its result (None: nothing is said)."""
    hints = typing.get_type_hints(function)
    returned = hints.pop("return", None)
    definitions: Schema = {}
    properties = {name: _of(hint, definitions) for name, hint in hints.items()}
    output: Schema | None = None
    if returned:
        output = _of(returned, definitions)
        if "$ref" in output:
            output = {"type": "object", **definitions[output["$ref"].rsplit("/", 1)[1]]}
    given: Schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "definitions": definitions,
    }
    return given, output


def of_body(model: type[BaseModel]) -> Schema:
    """Return the schema of a cord whose plain body is one model."""
    document = model.model_json_schema(ref_template=_REF)
    name = model.__name__
    return {
        "type": "object",
        "properties": {"input_args": {"$ref": f"#/definitions/{name}"}},
        "required": ["input_args"],
        "definitions": {name: _untitled(document), **document.get("definitions", {})},
    }


def content_type_of(output: Schema | None) -> str | None:
    """Return the content type that the public SDK announces where a cord names none."""
    if output is None:
        return None
    return "application/json" if output.get("type") == "object" else "text/plain"


def _of(hint: Any, definitions: Schema) -> Schema:
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return _of_enum(hint)
    if inspect.isclass(hint) and issubclass(hint, BaseModel):
        return _of_model(hint, definitions)
    try:
        if hint in _PLAIN:
            return dict(_PLAIN[hint])
    except TypeError:  # a hint that cannot be hashed has no rule
        return {}
    return _of_generic(typing.get_origin(hint), typing.get_args(hint), definitions)


def _of_enum(hint: type[Enum]) -> Schema:
    values = [member.value for member in hint]
    for kind, name in _ENUM_TYPES:
        if all(isinstance(value, kind) for value in values):
            return {"type": name, "enum": values}
    return {"enum": values}


def _of_model(hint: type[BaseModel], definitions: Schema) -> Schema:
    name = hint.__name__
    if name not in definitions:
        document = hint.model_json_schema(ref_template=_REF)
        definitions[name] = _untitled(document)
        definitions.update(document.get("definitions", {}))
    return {"$ref": f"#/definitions/{name}"}


def _of_generic(origin: Any, arguments: tuple[Any, ...], definitions: Schema) -> Schema:
    first = arguments[0] if arguments else Any
    if origin is Union:
        return _of_union([_of(argument, definitions) for argument in arguments])
    if origin is list:
        return {"type": "array", "items": _of(first, definitions)}
    if origin is set:
        return {"type": "array", "items": _of(first, definitions), "uniqueItems": True}
    if origin is dict:
        if not arguments:
            return {"type": "object"}
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions)}
    if origin is tuple:
        items = [_of(argument, definitions) for argument in arguments]
        return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}
    if origin is Literal:
        return {"enum": list(arguments)}
    return {}


def _of_union(schemas: list[Schema]) -> Schema:
    null: Schema = {"type": "null"}
    if len(schemas) == 2 and null in schemas:
        (kept,) = [schema for schema in schemas if schema != null] or [null]
        return {**kept, "nullable": True}
    return {"oneOf": schemas}


def _untitled(document: Schema) -> Schema:
    return {name: part for name, part in document.items() if name not in ("title", "definitions")}
