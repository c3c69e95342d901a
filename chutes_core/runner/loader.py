"""The user's chute: environment, code, start-up and shutdown hooks, on the chute's loop.

Path: session (START) -> `ChuteHost.start` -> sdk.loader -> hooks -> `Service` for the executor.
Invariant: a chute is started at most once in a process, and only after the proof; a repeated START
of the same order gets the same answer (a restarted validator asks again), any other is refused.
"""

import asyncio
import importlib
import logging
import os
import re
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Protocol, TypeVar, cast

import anyio.to_thread

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict, Invalid, Unavailable
from chutes_core.runner.asgi import Receive, Scope, Send
from chutes_core.runner.chute_loop import ChuteLoop
from chutes_core.runner.executor import Executor, Service
from chutes_core.runner.jobs import Job
from chutes_core.runner.passthrough import passthroughs
from chutes_core.wire.launch import CordRoute, Started, StartOrder

MAX_TRACE = 4000
MIN_SECRET_SHOWN = 6  # shorter values would blot out ordinary text
DEFAULT_THREADS = 40  # anyio's own limit of threads for sync cords
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RESERVED_PREFIXES = ("CHUTES_RUNNER_", "PYTHON", "LD_", "DYLD_")
_LOG = logging.getLogger("chutes_core.runner")
_T = TypeVar("_T")
_RESERVED = frozenset(("CHUTES_EXECUTION_CONTEXT", "GLIBC_TUNABLES"))


class Cord(Protocol):
    """What the runner reads of one of the chute's cords."""

    @property
    def function(self) -> str: ...  # noqa: D102 # the fields of CordRoute
    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def public_api_path(self) -> str | None: ...  # noqa: D102
    @property
    def public_api_method(self) -> str | None: ...  # noqa: D102
    @property
    def stream(self) -> bool: ...  # noqa: D102
    @property
    def passthrough(self) -> bool: ...  # noqa: D102
    @property
    def passthrough_path(self) -> str: ...  # noqa: D102
    @property
    def passthrough_port(self) -> int | None: ...  # noqa: D102


class LoadedChute(Protocol):
    """What the runner needs of a chute (sdk/chute)."""

    @property
    def cords(self) -> Iterable[Cord]:
        """Its cords."""
        ...

    @property
    def jobs(self) -> Iterable[Job]:
        """Its jobs."""
        ...

    @property
    def passthrough_headers(self) -> Mapping[str, str]:
        """What passthrough cords add to what they hand on."""
        ...

    async def startup(self) -> None:
        """Run the start-up hooks."""
        ...

    async def shutdown(self) -> None:
        """Run the shutdown hooks."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        ...


LoadChute = Callable[[StartOrder], LoadedChute]


def load_with_sdk(order: StartOrder) -> LoadedChute:
    """Load the chute with the SDK, which is imported only now: it brings the web framework."""
    module = importlib.import_module("chutes_core.sdk.loader")
    chute = module.load_code(order.code, order.filename, order.ref_str)
    return cast(LoadedChute, chute)


class ChuteHost:
    """Starts and ends the chute of this process.

    Args:
        chute_loop: where user code runs.
        executor: takes calls once the chute is up.
        clock: measures the start-up.
        environ: the process's environment, into which the order's variables go.
        load: turns an order into a chute.
    """

    def __init__(
        self,
        chute_loop: ChuteLoop,
        executor: Executor,
        clock: Clock,
        *,
        environ: MutableMapping[str, str] = os.environ,
        load: LoadChute = load_with_sdk,
    ) -> None:
        self._chute_loop = chute_loop
        self._executor = executor
        self._clock = clock
        self._environ = environ
        self._load = load
        self._order: StartOrder | None = None
        self._starting: asyncio.Task[Started] | None = None
        self._chute: LoadedChute | None = None

    def prepare(self) -> None:
        """Import the SDK on the chute's loop ahead of START, while the proof runs."""
        self._chute_loop.soon(importlib.import_module, "chutes_core.sdk.loader")

    async def start(self, order: StartOrder) -> Started:
        """Load the chute and run its start-up hooks; the same order again gets the same answer.

        Raises:
            Invalid: ``bad_env``.
            Conflict: ``already_started`` with another order.
            Unavailable: ``start_failed`` with the traceback's last lines.
        """
        if self._starting is None:
            check_env(order.env | order.secrets)
            self._order = order
            self._starting = asyncio.ensure_future(self._start(order))
        elif not _same(self._order, order):
            raise Conflict("already_started", "this instance runs another order")
        return await asyncio.shield(self._starting)  # a caller that leaves does not stop it

    def jobs(self) -> Iterable[Job]:
        """Return the jobs of the started chute.

        Raises:
            Unavailable: ``not_started``.
        """
        if self._chute is None:
            raise Unavailable("not_started", "this instance has no chute yet")
        return self._chute.jobs

    async def shutdown(self, limit_s: float) -> None:
        """Run the shutdown hooks of a started chute, for at most ``limit_s``.

        Raises:
            Unavailable: ``shutdown_failed``: a hook raised, or took too long.
        """
        if self._chute is None:
            return
        hooks = self._chute_loop.submit(_guarded("shutdown_failed", self._chute.shutdown, {}))
        await asyncio.wait({hooks}, timeout=limit_s)
        if not hooks.done():
            raise Unavailable("shutdown_failed", f"the hooks ran for over {limit_s} s")
        hooks.result()

    async def _start(self, order: StartOrder) -> Started:
        begun_us = self._clock.monotonic_us()
        routes, chute = await self._chute_loop.submit(
            _guarded("start_failed", lambda: self._bring_up(order), order.secrets)
        )
        self._chute = chute
        ways = passthroughs(chute.cords, chute.passthrough_headers)
        self._executor.serve(Service(chute, order.concurrency, ways))
        return Started(cords=routes, startup_ms=(self._clock.monotonic_us() - begun_us) // 1000)

    async def _bring_up(self, order: StartOrder) -> tuple[tuple[CordRoute, ...], LoadedChute]:
        self._environ.update(order.env | order.secrets, CHUTES_EXECUTION_CONTEXT="REMOTE")
        _allow_threads(order.concurrency)
        chute = self._load(order)
        await chute.startup()
        return tuple(_route(cord) for cord in chute.cords), chute


def check_env(env: Mapping[str, str]) -> None:
    """Check the variables that an order sets.

    Raises:
        Invalid: ``bad_env``: not a name, or one that steers the runner, Python or the linker.
    """
    for name, value in env.items():
        reserved = name in _RESERVED or name.startswith(_RESERVED_PREFIXES)
        if reserved or not _NAME.fullmatch(name) or "\0" in value:
            raise Invalid(
                "bad_env",
                f"the variable {name[:80]!r} cannot be set",
                hint=f"not a name, or reserved ({', '.join(_RESERVED_PREFIXES)})",
            )


def trace_of(error: BaseException, secrets: Iterable[str]) -> str:
    """Return the end of a traceback, at most MAX_TRACE characters, with secret values blotted."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    for value in sorted(secrets, key=len, reverse=True):
        if len(value) >= MIN_SECRET_SHOWN:
            text = text.replace(value, "***")
    return text[-MAX_TRACE:]


async def _guarded(code: str, run: Callable[[], Awaitable[_T]], secrets: Mapping[str, str]) -> _T:
    """Run user code; whatever it raises becomes ``code`` with the traceback's end."""
    try:
        return await run()
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 # user code
        trace = trace_of(error, secrets.values())
        _LOG.error("user code failed [%s]\n%s", code, trace)
        raise Unavailable(code, trace) from None


def _same(one: StartOrder | None, other: StartOrder) -> bool:
    return (
        one is not None and one.model_copy(update={"lease_until_s": other.lease_until_s}) == other
    )


def _route(cord: Cord) -> CordRoute:
    return CordRoute(
        function=cord.function,
        path=cord.path,
        method=cord.method,
        public_api_path=cord.public_api_path,
        public_api_method=cord.public_api_method if cord.public_api_path else None,
        stream=cord.stream,
    )


def _allow_threads(concurrency: int) -> None:
    """Let as many sync cords run at once as calls are admitted."""
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = max(DEFAULT_THREADS, concurrency)
