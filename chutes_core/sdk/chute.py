"""Chute: the application that a developer writes and miners run.

A chute is a FastAPI application with cords (functions that callers reach), hooks (what happens
before the first and after the last call) and jobs. Declaring one imports nothing that serves it:
model libraries belong into hooks and cords. Invariant: paths are unique, hooks run in order of
priority, and start-up happens once.

Names, defaults and rules follow shared/PUBLIC_API (Chute files).
"""

import contextlib
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Route

from chutes_core.base import ids
from chutes_core.base.errors import Conflict, Invalid
from chutes_core.sdk import serving
from chutes_core.sdk.cord import Cord, CordOptions, SchemaLike
from chutes_core.sdk.image import Image
from chutes_core.sdk.job import Job, Port
from chutes_core.sdk.node_selector import NodeSelector
from chutes_core.sdk.typed import MakesCord

__all__ = ["Chute", "ChutePack", "Cord", "Job", "NodeSelector", "Port"]

Hook = Callable[[Any], Awaitable[None] | None]
HookT = TypeVar("HookT", bound=Callable[..., Any])
FunctionT = Callable[..., Any]

_UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}")


class Chute(FastAPI):
    """A serverless application on rented GPUs.

    Args:
        username: the account that owns it.
        name: its name, unique for the account.
        image: an Image, or the id or ``user/name:tag`` of one that is built.
        tagline: one line shown in lists.
        readme: Markdown shown beside it.
        standard_template: the template that made it, if one did.
        revision: revision of the model, for templates.
        node_selector: the GPUs it asks for.
        concurrency: calls that one instance serves at a time.
        max_instances: the most instances at a time.
        shutdown_after_seconds: idle time after which an instance ends.
        scaling_threshold: busy share from which another instance is wanted, 0 to 1.
        allow_external_egress: whether instances may dial out while they serve.
        encrypted_fs: declared for the API; no file system is encrypted yet.
        passthrough_headers: headers added to what passthrough cords forward.
        tee: declared for the API; no enclave is used yet.
        lock_modules: declared for the API.
        fastapi_kwargs: what FastAPI takes; its documentation pages are off unless asked for.

    >>> chute = Chute(username="bob", name="hello", image="bob/app:1")
    >>> @chute.cord()
    ... async def echo(self, text: str) -> str:
    ...     return text
    >>> echo
    Cord(POST /echo)
    """

    def __init__(
        self,
        username: str,
        name: str,
        image: str | Image,
        tagline: str = "",
        readme: str = "",
        standard_template: str | None = None,
        revision: str | None = None,
        node_selector: NodeSelector | None = None,
        concurrency: int | None = 1,
        max_instances: int | None = 1,
        shutdown_after_seconds: int | None = 300,
        scaling_threshold: float | None = 0.75,
        allow_external_egress: bool | None = False,
        encrypted_fs: bool | None = False,
        passthrough_headers: dict[str, str] | None = None,
        tee: bool | None = False,
        lock_modules: bool | None = None,
        **fastapi_kwargs: Any,
    ) -> None:
        closed = {"docs_url": None, "redoc_url": None, "openapi_url": None}
        super().__init__(**{"title": name, "lifespan": _lifespan, **closed, **fastapi_kwargs})
        self.username = username
        self.name = _checked_name(name)
        self.image = image
        self.tagline = tagline
        self.readme = readme
        self.standard_template = standard_template
        self.revision = revision
        self.node_selector = node_selector or NodeSelector()
        self.concurrency = _in_range("concurrency", concurrency or 1, 1, 1024)
        self.max_instances = _in_range("max_instances", max_instances or 1, 1, 100)
        seconds = 300 if shutdown_after_seconds is None else shutdown_after_seconds
        self.shutdown_after_seconds = _in_range("shutdown_after_seconds", seconds, 1, 604_800)
        threshold = 0.75 if scaling_threshold is None else scaling_threshold
        self.scaling_threshold = _in_range("scaling_threshold", threshold, 0.01, 1.0)
        self.allow_external_egress = bool(allow_external_egress)
        self.encrypted_fs = bool(encrypted_fs)
        self.tee = bool(tee)
        self.lock_modules = lock_modules
        self.passthrough_headers = dict(passthrough_headers or {})
        self._cords: list[Cord] = []
        self._jobs: list[Job] = []
        self._hooks: dict[str, list[tuple[int, Hook]]] = {"startup": [], "shutdown": []}
        self._started = False
        self._table = serving.CordTable(self.passthrough_headers)
        self.add_exception_handler(HTTPException, serving.http_error)

    @property
    def chute_id(self) -> str:
        """Return the id that the API gives to a chute of this owner and name."""
        return ids.chute_id(self.username, self.name)

    @property
    def uid(self) -> str:
        """Return ``chute_id`` by its public name."""
        return self.chute_id

    @property
    def image_ref(self) -> str:
        """Return the image as the API takes it: an id or ``user/name:tag``."""
        return self.image.full_name if isinstance(self.image, Image) else self.image

    @property
    def image_id(self) -> str:
        """Return the id of the image.

        Raises:
            Invalid: ``bad_image_reference``.
        """
        reference = self.image_ref
        if _UUID.match(reference):
            return reference
        user, slash, rest = reference.partition("/")
        name, colon, tag = rest.partition(":")
        if not (slash and colon and user and name and tag):
            raise Invalid(
                "bad_image_reference",
                f"{reference!r} names no image",
                hint="give an Image, an image id, or user/name:tag",
            )
        return ids.image_id(user, name, tag)

    @property
    def cords(self) -> tuple[Cord, ...]:
        """Return the cords in the order of their declaration."""
        return tuple(self._cords)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Return the jobs in the order of their declaration."""
        return tuple(self._jobs)

    def on_startup(self, priority: int = 50) -> Callable[[HookT], HookT]:
        """Run the decorated function, with the chute as self, before the first call.

        Lower priorities run first, equal ones in the order of declaration; sync or async.
        """
        return self._hook_decorator("startup", priority)

    def on_shutdown(self, priority: int = 50) -> Callable[[HookT], HookT]:
        """Run the decorated function, with the chute as self, after the last call."""
        return self._hook_decorator("shutdown", priority)

    def cord(
        self,
        stream: bool = False,
        path: str | None = None,
        passthrough_path: str | None = None,
        passthrough: bool = False,
        passthrough_port: int | None = None,
        public_api_path: str | None = None,
        public_api_method: str = "POST",
        method: str = "POST",
        provision_timeout: int = 180,
        input_schema: SchemaLike = None,
        minimal_input_schema: SchemaLike = None,
        output_content_type: str | None = None,
        output_schema: SchemaLike = None,
        **session_options: Any,
    ) -> MakesCord:
        """Make the decorated function callable from outside.

        Args:
            stream: the function yields, and callers get each item at once.
            path: internal path, by default ``/`` and the function's name.
            passthrough_path: path at the chute's own server, for passthrough cords.
            passthrough: hand the request on to a server that the chute started.
            passthrough_port: port of that server, 8000 by default.
            public_api_path: path under which HTTP callers reach it.
            public_api_method: HTTP method there.
            method: HTTP method of the internal path.
            provision_timeout: seconds that a caller waits for a cold chute.
            input_schema: a pydantic model of the plain body, or a JSON schema for show.
            minimal_input_schema: a shorter one, for a first try.
            output_content_type: content type of answers that are text or bytes.
            output_schema: a pydantic model or JSON schema of the answer.
            session_options: accepted for the public SDK's sake (options of its HTTP client).

        Raises:
            Invalid: a path, method or signature breaks a rule.
            Conflict: ``cord_path_taken`` or ``cord_name_taken``.
        """
        del session_options
        options = CordOptions(
            stream=stream,
            path=path,
            passthrough_path=passthrough_path,
            passthrough=passthrough,
            passthrough_port=passthrough_port,
            public_api_path=public_api_path,
            public_api_method=public_api_method,
            method=method,
            provision_timeout=provision_timeout,
            input_schema=input_schema,
            minimal_input_schema=minimal_input_schema,
            output_content_type=output_content_type,
            output_schema=output_schema,
        )

        def decorate(function: FunctionT) -> Cord:
            cord: Cord = Cord(self, function, options)
            if any(other.function == cord.function for other in self._cords):
                raise Conflict(
                    "cord_name_taken",
                    f"there is a cord {cord.function!r} already",
                    hint="give the second function another name",
                )
            for verb, place in self._table.add(cord):
                self.router.routes.append(Route(place, self._table.endpoint, methods=[verb]))
            self._cords.append(cord)
            return cord

        return cast(MakesCord, decorate)

    def job(
        self,
        ports: Iterable[Port | Mapping[str, Any]] | None = None,
        timeout: int | None = None,
        upload: bool | None = True,
        ssh: bool | None = False,
    ) -> Callable[[FunctionT], Job]:
        """Declare a long-running function with ports of its own; sdk/job.py has its options."""

        def decorate(function: FunctionT) -> Job:
            job = Job(self, function, ports or (), timeout, upload, ssh)
            self._jobs.append(job)
            return job

        return decorate

    async def startup(self) -> None:
        """Run the start-up hooks once; what a hook raises passes through."""
        if self._started:
            return
        self._started = True
        for hook in self._ordered("startup"):
            await _call_hook(hook, self)

    async def shutdown(self) -> None:
        """Run every shutdown hook, even after one that failed, and then raise that failure."""
        if not self._started:
            return
        self._started = False
        async with contextlib.AsyncExitStack() as stack:
            for hook in reversed(self._ordered("shutdown")):
                stack.push_async_callback(_call_hook, hook, self)

    def asgi(self) -> "Chute":
        """Return the ASGI application that serves every cord."""
        return self

    def _hook_decorator(self, moment: str, priority: int) -> Callable[[HookT], HookT]:
        if not isinstance(priority, int):
            raise Invalid(
                "hook_without_parentheses",
                f"on_{moment} is a decorator with arguments",
                hint=f"write @chute.on_{moment}()",
            )

        def decorate(function: HookT) -> HookT:
            self._hooks[moment].append((priority, function))
            return function

        return decorate

    def _ordered(self, moment: str) -> list[Hook]:
        return [hook for _, hook in sorted(self._hooks[moment], key=lambda entry: entry[0])]


@dataclass
class ChutePack:
    """A chute together with the cords that a template gave it."""

    chute: Chute


@contextlib.asynccontextmanager
async def _lifespan(chute: FastAPI) -> AsyncIterator[None]:
    """Run the hooks where an ASGI server drives the chute (`chutes run --dev`)."""
    assert isinstance(chute, Chute)
    await chute.startup()
    try:
        yield
    finally:
        await chute.shutdown()


async def _call_hook(hook: Hook, chute: Chute) -> None:
    result = hook(chute)
    if inspect.isawaitable(result):
        await result


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Invalid(
            "bad_chute_name",
            f"{name!r} cannot be the name of a chute",
            hint="letters, digits, and - _ . /, at most 128 characters",
        )
    return name


def _in_range(what: str, value: Any, low: Any, high: Any) -> Any:
    if not low <= value <= high:
        raise Invalid(
            f"bad_{what}",
            f"{what} must be between {low} and {high}, not {value}",
            hint="docs/sdk.md has what each option means, docs/limits.md the bounds",
        )
    return value
