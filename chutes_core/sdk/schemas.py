"""From type hints to JSON schemas, and from JSON to a function's arguments.

A cord's function says everything in its signature. This module turns it into one pydantic model
(the input), one schema of the output, and the rule by which a JSON body becomes arguments:

- one parameter of an object type (a pydantic model, dataclass, TypedDict or dict) is the whole
  body;
- otherwise the body is an object with one key for each parameter.

Invariant: a function is called only with values that its own hints accept; a hint that pydantic
cannot check accepts everything.
"""

import collections.abc
import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from typing_extensions import is_typeddict

from chutes_core.base.errors import Invalid

_STREAMS = (
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
    collections.abc.Generator,
    collections.abc.Iterable,
    collections.abc.Iterator,
)


_ARBITRARY = ConfigDict(arbitrary_types_allowed=True)


class InvalidInput(Invalid):
    """A call's input does not fit the cord (HTTP 422); ``fields`` names each place."""

    def __init__(self, fields: list[dict[str, str]]) -> None:
        text = "; ".join(f"{item['loc'] or 'body'}: {item['msg']}" for item in fields)
        super().__init__("invalid_input", text, hint="see the cord's input schema")
        self.fields = fields


class CallInput:
    """How one function is called.

    Args:
        function: takes the chute first, then its parameters.
        body_model: the model given as ``input_schema``; it then describes the plain body.
    """

    def __init__(
        self, function: Callable[..., Any], body_model: type[BaseModel] | None = None
    ) -> None:
        self._signature = _signature_without_self(function)
        self._hints = {
            name: Any if _adapter(hint) is None else hint
            for name, hint in type_hints(function).items()
        }
        parameters = list(self._signature.parameters.values())
        self._open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        self._body_model = body_model
        self._whole_name = self._whole_body_name()
        self._model = _arguments_model(function.__name__, parameters, self._hints)
        whole_hint = Any if self._whole_name is None else self._hints[self._whole_name]
        self._whole = _adapter(whole_hint) or TypeAdapter(Any)

    def json_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema of a plain body, or None where the types have none."""
        if self._body_model is not None:
            return self._body_model.model_json_schema()
        if self._whole_name is not None:
            return json_schema_of(self._hints[self._whole_name])
        return json_schema_of(self._model)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the parameters after self, in order."""
        return tuple(self._names)

    def from_body(self, body: Any) -> dict[str, Any]:
        """Return the keyword arguments for a plain JSON body (already parsed).

        Raises:
            InvalidInput: the body does not fit.
        """
        if self._body_model is not None:
            return self._from_body_model(body)
        if self._whole_name is not None:
            return {self._whole_name: _validated(self._whole.validate_python, body)}
        return self._from_arguments({} if body is None else body)

    def from_call(self, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments for an SDK call's positional and named values.

        Raises:
            InvalidInput: they do not fit the signature or its hints.
        """
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidInput([{"loc": "", "msg": str(error)}]) from error
        arguments = dict(bound.arguments)
        for parameter in self._signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(parameter.name, {}))
        return self._from_arguments(arguments)

    def _whole_body_name(self) -> str | None:
        if len(self._names) != 1 or self._open_ended:
            return None
        name = self._names[0]
        return name if _is_object_type(self._hints.get(name, Any)) else None

    def _from_arguments(self, arguments: Any) -> dict[str, Any]:
        model: BaseModel = _validated(self._model.model_validate, arguments)
        values = {name: getattr(model, f"p{index}") for index, name in enumerate(self._names)}
        return {**values, **(model.model_extra or {})}

    def _from_body_model(self, body: Any) -> dict[str, Any]:
        assert self._body_model is not None
        model: BaseModel = _validated(self._body_model.model_validate, body)
        if len(self._names) != 1:
            wanted = model.model_dump() if self._names or self._open_ended else {}
            return self._from_arguments(wanted)
        name = self._names[0]
        hint = self._hints.get(name, Any)
        if _is_model(hint) and isinstance(model, hint):
            return {name: model}
        if hint is Any:
            return {name: model}
        if name in self._body_model.model_fields and not _is_object_type(hint):
            return self._from_arguments(model.model_dump())
        return self._from_arguments({name: model.model_dump()})


def type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved hints of a function.

    Raises:
        Invalid: ``unresolved_hint`` where a name in a hint is unknown.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise Invalid(
            "unresolved_hint",
            f"a type hint of {function.__name__!r} cannot be resolved: {error}",
            hint="define the type at the top of the file, above the function",
        ) from error


def output_type(function: Callable[..., Any], *, stream: bool) -> Any:
    """Return the type that a cord answers with (of each item for a stream); Any where unsaid."""
    hint = type_hints(function).get("return", Any)
    if not stream:
        return hint
    if typing.get_origin(hint) in _STREAMS:
        return typing.get_args(hint)[0]
    return Any


def json_schema_of(hint: Any) -> dict[str, Any] | None:
    """Return the JSON schema of a type, or None where it has none (Any, Response, bytes…)."""
    if hint is Any or hint is bytes:
        return None
    try:
        return TypeAdapter(hint).json_schema()
    except PydanticUserError:
        return None


def _signature_without_self(function: Callable[..., Any]) -> inspect.Signature:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
        raise Invalid(
            "no_self_parameter",
            f"{function.__name__!r} must take the chute as its first parameter",
            hint=f"write: async def {function.__name__}(self, …)",
        )
    for parameter in parameters[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise Invalid(
                "positional_parameter",
                f"parameter {parameter.name!r} of {function.__name__!r} cannot be named in JSON",
                hint="use ordinary parameters, without * or /",
            )
    return inspect.Signature(parameters[1:])


def _arguments_model(
    function_name: str, parameters: list[inspect.Parameter], hints: dict[str, Any]
) -> type[BaseModel]:
    """Return a model with a field p0, p1… for each parameter, aliased to the parameter's name.

    The aliases keep names such as ``schema`` or ``_x`` legal, which pydantic reserves.
    """
    fields: dict[str, Any] = {}
    extra: typing.Literal["allow", "forbid"] = "forbid"
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = "allow"
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        hint = hints.get(parameter.name, Any)
        field = Field(default, alias=parameter.name, title=parameter.name)
        fields[f"p{len(fields)}"] = (hint, field)
    config = ConfigDict(extra=extra, arbitrary_types_allowed=True)
    return create_model(f"{function_name}_input", __config__=config, **fields)


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    """Return what checks a value against a hint, or None where pydantic cannot."""
    for config in (None, _ARBITRARY):  # models and dataclasses bring their own
        try:
            return TypeAdapter(hint, config=config)
        except (PydanticUserError, TypeError):
            continue
    return None


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _is_object_type(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    origin = typing.get_origin(hint) or hint
    if not isinstance(origin, type):
        return False
    return (
        issubclass(origin, (BaseModel, collections.abc.Mapping))
        or dataclasses.is_dataclass(origin)
        or is_typeddict(origin)
    )


def _validated(validate: Callable[[Any], Any], value: Any) -> Any:
    try:
        return validate(value)
    except ValidationError as error:
        fields = [
            {"loc": ".".join(str(part) for part in item["loc"]), "msg": item["msg"]}
            for item in error.errors(include_url=False, include_context=False)
        ]
        raise InvalidInput(fields) from error
