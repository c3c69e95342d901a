"""Cord: one function of a chute and how it is reached.

Declaring a cord fixes its paths, methods and schemas. Calling one is a call of the deployed chute
(of a local one with CHUTES_DEV_URL), except inside the runner, where it is the function itself.
Invariant: a cord's internal path is unique in its chute and matches PATH_PATTERN.

Parameters and rules follow shared/PUBLIC_API (Chute files).
"""

import contextlib
import functools
import inspect
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, overload

import anyio.to_thread
from pydantic import BaseModel

from chutes_core.base.errors import Invalid
from chutes_core.sdk import blocking, public_schemas, schemas
from chutes_core.sdk.typed import P, ResultT, ReturnT

if TYPE_CHECKING:
    from chutes_core.sdk.chute import Chute

PATH_PATTERN = r"^(/[a-z0-9_]+[a-z0-9-_]*)+$"
MAX_PATH_LENGTH = 200
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
DEFAULT_PASSTHROUGH_PORT = 8000

_PATH = re.compile(r"(/[a-z0-9_][a-z0-9_-]*)+")  # the same paths, without its ambiguity

SchemaLike = type[BaseModel] | dict[str, Any] | None


def in_runner() -> bool:
    """Return whether this process runs a chute, so that a call means the function itself."""
    return os.environ.get("CHUTES_EXECUTION_CONTEXT") == "REMOTE"


@dataclass(frozen=True)
class CordOptions:
    """The arguments of ``@chute.cord``, checked; the meaning of each stands at Chute.cord."""

    stream: bool = False
    path: str | None = None
    passthrough_path: str | None = None
    passthrough: bool = False
    passthrough_port: int | None = None
    public_api_path: str | None = None
    public_api_method: str = "POST"
    method: str = "POST"
    provision_timeout: int = 180
    input_schema: SchemaLike = None
    minimal_input_schema: SchemaLike = None
    output_content_type: str | None = None
    output_schema: SchemaLike = None

    def __post_init__(self) -> None:
        for value in (self.method, self.public_api_method):
            if value not in METHODS:
                raise Invalid(
                    "bad_method",
                    f"{value!r} is no method of a cord",
                    hint=f"one of {', '.join(METHODS)}",
                )
        if self.passthrough_port is not None and not 1 <= self.passthrough_port <= 65535:
            raise Invalid("bad_port", f"{self.passthrough_port} is no port", hint="1 to 65535")
        if self.provision_timeout < 1:
            raise Invalid(
                "bad_timeout",
                "provision_timeout must be at least one second",
                hint="180 s is the default",
            )


class Cord(Generic[P, ReturnT]):
    """A declared cord; made by ``@chute.cord(…)``.

    Type checkers know its function's parameters and result (sdk/typed.py): ``await echo("x")`` and
    ``echo.sync("x")`` are checked like a call of the function.
    """

    def __init__(self, chute: "Chute", function: Callable[..., Any], options: CordOptions) -> None:
        self._chute = chute
        self.callable = function
        self.function = function.__name__
        self.path = _checked_path(options.path or self.function)
        self.method = options.method
        public_path = options.public_api_path
        self.public_api_path = None if public_path is None else _checked_path(public_path)
        self.public_api_method = options.public_api_method
        self.stream = options.stream
        self.passthrough = options.passthrough
        self.passthrough_path = _checked_path(options.passthrough_path or self.function)
        self.passthrough_port = options.passthrough_port or (
            DEFAULT_PASSTHROUGH_PORT if options.passthrough else None
        )
        self.provision_timeout = options.provision_timeout
        self.output_content_type = options.output_content_type or (
            "text/event-stream" if options.stream else None
        )
        self._options = options
        # A passthrough cord's function is never called: it says what the answer looks like.
        called = _anything if options.passthrough else function
        self.input = schemas.CallInput(called, _model_or_none(options.input_schema))
        self.output_type = schemas.output_type(function, stream=options.stream)
        self._check_stream()
        self.__name__ = self.function
        self.__doc__ = function.__doc__

    @property
    def input_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema that the API shows of the arguments (sdk/public_schemas.py)."""
        return _shown(self._options.input_schema) or self._shown_schemas()[0]

    @property
    def minimal_input_schema(self) -> dict[str, Any] | None:
        """Return the schema for a first try, where the chute's author gave one."""
        return _shown(self._options.minimal_input_schema)

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema that the API shows of the answer, where something is said."""
        return _schema(self._options.output_schema) or self._shown_schemas()[1]

    @property
    def announced_content_type(self) -> str | None:
        """Return the content type that the API shows."""
        given = self._options.output_content_type
        return given or public_schemas.content_type_of(self._shown_schemas()[1])

    # Of the overloads that fit, the first counts: items, then the result of a coroutine, then any.
    @overload
    def __call__(  # type: ignore[overload-overlap] # as the order above says
        self: "Cord[P, AsyncIterator[Any]]", *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[str]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self: "Cord[P, Iterator[Any]]", *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[str]: ...
    @overload
    def __call__(
        self: "Cord[P, Coroutine[Any, Any, ResultT]]", *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, ResultT]: ...
    @overload
    def __call__(
        self: "Cord[P, ResultT]", *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, ResultT]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the deployed chute; inside the runner, call the function.

        Returns an awaitable of the result, or an async iterator of the items of a stream.
        """
        if in_runner():
            run = self.iterate if self.stream else self.run
            return run(*args, **kwargs)
        # The HTTP client costs 0.15 s; most processes that declare a cord never call one.
        from chutes_core.sdk.remote import call_cord, stream_cord

        call = stream_cord if self.stream else call_cord
        return call(self._chute, self, args, kwargs)

    @overload
    def sync(
        self: "Cord[P, AsyncIterator[Any]]", *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[str]: ...
    @overload
    def sync(
        self: "Cord[P, Iterator[Any]]", *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[str]: ...
    @overload
    def sync(
        self: "Cord[P, Coroutine[Any, Any, ResultT]]", *args: P.args, **kwargs: P.kwargs
    ) -> ResultT: ...
    @overload
    def sync(self: "Cord[P, ResultT]", *args: P.args, **kwargs: P.kwargs) -> ResultT: ...
    def sync(self, *args: Any, **kwargs: Any) -> Any:
        """Call it as ``cord(…)`` does, from code without an event loop.

        Returns the result, or an iterator of a stream's items.

        Raises:
            ChutesError: what the call raises.
        """
        call: Any = self(*args, **kwargs)
        return blocking.items_of(call) if self.stream else blocking.result_of(call)

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function of a cord that is no stream; a sync function runs in a thread."""
        if inspect.iscoroutinefunction(self.callable):
            return await self.callable(self._chute, *args, **kwargs)
        bound = functools.partial(self.callable, self._chute, *args, **kwargs)
        return await anyio.to_thread.run_sync(bound)

    async def iterate(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Run the function of a streaming cord and yield its items; the function ends with us."""
        if inspect.isasyncgenfunction(self.callable):
            async with contextlib.aclosing(self.callable(self._chute, *args, **kwargs)) as items:
                async for item in items:
                    yield item
            return
        iterator = iter(self.callable(self._chute, *args, **kwargs))
        end = object()
        while (item := await anyio.to_thread.run_sync(next, iterator, end)) is not end:
            yield item

    def to_api(self) -> dict[str, Any]:
        """Return the cord as POST /chutes/ takes it."""
        return {
            "function": self.function,
            "path": self.path,
            "method": self.method,
            "public_api_path": self.public_api_path,
            "public_api_method": self.public_api_method,
            "stream": self.stream,
            "passthrough": self.passthrough,
            "input_schema": self.input_schema,
            "minimal_input_schema": self.minimal_input_schema,
            "output_schema": self.output_schema,
            "output_content_type": self.announced_content_type,
        }

    def __repr__(self) -> str:
        return f"Cord({self.method} {self.path})"

    def _shown_schemas(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        return public_schemas.of_function(self.callable)

    def _check_stream(self) -> None:
        generator = inspect.isasyncgenfunction(self.callable) or inspect.isgeneratorfunction(
            self.callable
        )
        if self.passthrough or generator == self.stream:
            return
        raise Invalid(
            "stream_mismatch",
            f"cord {self.function!r} "
            + ("yields, but is no stream" if generator else "is a stream, but yields nothing"),
            hint="use @chute.cord(stream=True) with `yield`, and `return` without it",
        )


def _anything(self: Any, **data: Any) -> None:
    """Take whatever a passthrough cord is called with."""


def _checked_path(path: str) -> str:
    path = "/" + path.strip("/")
    if len(path) > MAX_PATH_LENGTH or not _PATH.fullmatch(path):
        raise Invalid(
            "bad_cord_path",
            f"{path!r} is no valid path of a cord",
            hint="lower-case letters, digits, '_' and '-', e.g. /v1/embeddings",
        )
    return path


def _schema(given: SchemaLike) -> dict[str, Any] | None:
    if given is None or isinstance(given, dict):
        return given
    return given.model_json_schema()


def _shown(given: SchemaLike) -> dict[str, Any] | None:
    if given is None or isinstance(given, dict):
        return given
    return public_schemas.of_body(given)


def _model_or_none(given: SchemaLike) -> type[BaseModel] | None:
    return given if isinstance(given, type) else None
