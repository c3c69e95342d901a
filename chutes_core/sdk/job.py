"""Job and Port: long-running work with ports of its own, declared beside the cords.

A job gets ``output_dir``, an empty folder; what it leaves there is its upload. Invariant: declared
jobs travel with the chute (shared/PUBLIC_API, POST /chutes/), and a job ends in one of four ways
(`JobResult.status`), at the latest with its time limit. On the network a job is run by `chutes jobs
run` (docs/chutes.md); `run` runs it here, where its ports are simply listened on.

Names and bounds follow the public SDK 0.6.x.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from chutes_core.base.errors import Conflict, Invalid

if TYPE_CHECKING:
    from chutes_core.sdk.chute import Chute

MIN_TIMEOUT_S, MAX_TIMEOUT_S = 30, 86_400
SSH_PORT = 2202
GRACE_S = 5.0  # a job that is stopped has this long to end
_LOG = logging.getLogger("chutes")

JobStatus = Literal["complete", "error", "timeout", "cancelled"]


class Port(BaseModel):
    """A port that a job listens on, on 127.0.0.1; ``http`` has an address at the validator.

    `chutes jobs forward` makes any of them a local port. A validator carries tcp and http, from
    1024 on.

    >>> Port(name="web", port=8080, proto="http").proto
    'http'
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(pattern=r"^[a-z]+[a-z0-9-]*$", max_length=32)
    port: int = Field(ge=1, le=65535)
    proto: Literal["tcp", "udp", "http"] = "tcp"


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    Args:
        status: ``complete``, or why it is not.
        result: what the function returned, where it is complete.
        detail: what went wrong, where it is not.
        files: what it left in its output folder, by relative path; empty without ``upload``.
    """

    status: JobStatus
    result: Any = None
    detail: str = ""
    files: tuple[str, ...] = ()


class Job:
    """One job of a chute; made by ``@chute.job(…)``.

    Args:
        chute: the chute that has it, the function's self.
        function: the decorated function.
        ports: what it listens on.
        timeout: seconds after which it is stopped, 30 to 86400, or None.
        upload: whether its output folder is kept.
        ssh: declares tcp port 2202 as ``ssh``; the job itself starts the server there.

    Raises:
        Invalid: ``bad_timeout``. Conflict: ``port_declared_twice``.
    """

    def __init__(
        self,
        chute: "Chute",
        function: Callable[..., Any],
        ports: Iterable[Port | Mapping[str, Any]] = (),
        timeout: int | None = None,
        upload: bool | None = True,
        ssh: bool | None = False,
    ) -> None:
        self._chute = chute
        self.callable = function
        self.timeout = _checked_timeout(timeout)
        self.upload = bool(upload)
        self.ssh = bool(ssh)
        self.ports = _checked_ports(ports, ssh=self.ssh)
        self.__name__ = self.name
        self.__doc__ = function.__doc__

    @property
    def name(self) -> str:
        """Return the function's name."""
        return self.callable.__name__

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Say how a job is run: it is no function that answers its caller."""
        raise Invalid(
            "job_called",
            f"job {self.name!r} is no function to be called",
            hint=f"on the network: chutes jobs run {self._chute.name} {self.name}; "
            f"here: chutes run --dev --dev-job-method {self.name}",
        )

    async def run(self, output_dir: Path, **job_data: Any) -> JobResult:
        """Run the job in this process, to its end or its time limit.

        Args:
            output_dir: an empty folder, which the function gets as ``output_dir`` (a str).
            job_data: the rest of its arguments.
        """
        return await self.run_within(output_dir, self.timeout, job_data)

    async def run_within(
        self, output_dir: Path, limit_s: float | None, job_data: Mapping[str, Any]
    ) -> JobResult:
        """Run the job with a time limit of the caller's; else like `run`."""
        given = {**job_data, "output_dir": str(output_dir)}
        running = asyncio.ensure_future(self._call(given))
        try:
            ended, _ = await asyncio.wait({running}, timeout=limit_s)
        finally:
            running.cancel()
            await asyncio.wait({running}, timeout=GRACE_S)
        if not ended:
            return JobResult("timeout", detail=f"stopped after {limit_s} s")
        if running.cancelled():
            return JobResult("cancelled", detail="the job cancelled itself")
        if (error := running.exception()) is not None:
            _LOG.error("job %s failed", self.name, exc_info=error)
            return JobResult("error", detail=f"{type(error).__name__}: {error}")
        files = _files(output_dir) if self.upload else ()
        return JobResult("complete", running.result(), files=files)

    def to_api(self) -> dict[str, Any]:
        """Return the job as POST /chutes/ takes it."""
        return {
            "name": self.name,
            "ports": [port.model_dump() for port in self.ports],
            "timeout": self.timeout,
            "upload": self.upload,
        }

    def __repr__(self) -> str:
        return f"Job({self.name})"

    async def _call(self, arguments: dict[str, Any]) -> Any:
        accepted = _accepted(self.callable, arguments)
        if inspect.iscoroutinefunction(self.callable):
            return await self.callable(self._chute, **accepted)
        bound = functools.partial(self.callable, self._chute, **accepted)
        return await anyio.to_thread.run_sync(bound, abandon_on_cancel=True)


def _accepted(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments without ``output_dir`` where the function has no place for it."""
    parameters = inspect.signature(function).parameters
    open_ended = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if open_ended or "output_dir" in parameters:
        return arguments
    return {name: value for name, value in arguments.items() if name != "output_dir"}


def _checked_timeout(timeout: int | None) -> int | None:
    if timeout is not None and not MIN_TIMEOUT_S <= timeout <= MAX_TIMEOUT_S:
        raise Invalid(
            "bad_timeout",
            f"a job's timeout is {MIN_TIMEOUT_S} to {MAX_TIMEOUT_S} s, not {timeout}",
            hint="leave it out for a job without a limit",
        )
    return timeout


def _checked_ports(ports: Iterable[Port | Mapping[str, Any]], *, ssh: bool) -> tuple[Port, ...]:
    found = [port if isinstance(port, Port) else Port(**port) for port in ports]
    if ssh:
        found.append(Port(name="ssh", port=SSH_PORT, proto="tcp"))
    if len({port.port for port in found}) != len(found):
        raise Conflict(
            "port_declared_twice",
            "a job declares one port twice",
            hint=f"give each a number of its own; ssh=True takes {SSH_PORT}",
        )
    return tuple(found)


def _files(folder: Path) -> tuple[str, ...]:
    inside = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return tuple(sorted(path.relative_to(folder).as_posix() for path in inside))
