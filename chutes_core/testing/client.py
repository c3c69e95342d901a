"""ChuteClient: a chute's hooks, cords and jobs, driven from a test.

The chute runs on an event loop of its own in a thread, as it does in the runner, and is reached
through the same ASGI application, so that paths, schemas, statuses and content types are the real
ones. Invariant: hooks run once around the ``with`` block; inside it a cord that calls a cord calls
the function itself; afterwards the environment is as before.
"""

import contextlib
import os
import queue
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio.from_thread
import httpx
import pydantic_core
from typing_extensions import Self

from chutes_core.base.errors import Invalid, NotFound
from chutes_core.sdk.answers import error_of
from chutes_core.sdk.chute import Chute
from chutes_core.sdk.cord import Cord
from chutes_core.sdk.job import Job, JobResult
from chutes_core.sdk.loader import load_chute
from chutes_core.sdk.remote import result_of
from chutes_core.testing.flow import Ended, flow
from chutes_core.wire.call import CALL_BY_ARGUMENTS, HEADER_CALL

CONTEXT = "CHUTES_EXECUTION_CONTEXT"
_BASE = "http://chute.test"


@dataclass(frozen=True)
class JobOutput:
    """How a job ended, and the bytes of what it left in its output folder."""

    result: JobResult
    files: dict[str, bytes] = field(default_factory=dict)


class ChuteClient:
    """Runs one chute; use it in a ``with`` block.

    Args:
        chute: the chute, a ChutePack, or ``module:variable``.
        directory: where the file lies, for a reference; default: here.

    Raises:
        Invalid: ``not_a_chute``; or the file does not load.
    """

    def __init__(self, chute: Any, directory: Path | None = None) -> None:
        found = load_chute(chute, directory) if isinstance(chute, str) else chute
        found = getattr(found, "chute", found)
        if not isinstance(found, Chute):
            raise Invalid(
                "not_a_chute",
                f"{chute!r} is no Chute",
                hint="give the chute, or its file and variable, e.g. 'hello:chute'",
            )
        self.chute = found
        self._stack = contextlib.ExitStack()
        self._portal: anyio.from_thread.BlockingPortal | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_inside())
            portal = stack.enter_context(anyio.from_thread.start_blocking_portal())
            portal.call(self.chute.startup)
            stack.callback(portal.call, self.chute.shutdown)
            self._portal = portal
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._portal = None
        self._stack.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send an HTTP request to the chute; ``options`` are those of httpx (json, params…)."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.chute)
            async with httpx.AsyncClient(transport=transport, base_url=_BASE) as client:
                return await client.request(method, path, **options)

        return self._open.call(send)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Send a GET request."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """Send a POST request."""
        return self.request("POST", path, **options)

    def call(self, cord: Cord | str, *args: Any, **kwargs: Any) -> Any:
        """Call a cord as deployed code would be called from Python; return its typed result.

        Raises:
            ChutesError: what a caller would get: ``invalid_input``, ``cord_failed``…
        """
        wanted = self._cord(cord)
        answer = self.request(
            "POST", wanted.path, content=_arguments(args, kwargs), headers=_CALL_HEADERS
        )
        if answer.status_code >= 400:
            raise error_of(answer.status_code, answer.headers, answer.content)
        return result_of(wanted, answer)

    def stream(self, cord: Cord | str, *args: Any, **kwargs: Any) -> Iterator[str]:
        """Call a streaming cord; yield its text piece by piece, each as soon as it is there.

        Raises:
            ChutesError: what a caller would get before the first piece.
        """
        pieces: queue.Queue[bytes | Ended] = queue.Queue()
        running: Future[None] = self._open.start_task_soon(
            flow, self.chute, self._cord(cord).path, _arguments(args, kwargs), _CALL_HEADERS, pieces
        )
        try:
            while not isinstance(piece := pieces.get(), Ended):
                yield piece.decode()
        finally:
            running.cancel()
        piece.check()

    def run_job(self, job: Job | str, **job_data: Any) -> JobOutput:
        """Run a job to its end and return its result and files.

        Raises:
            NotFound: ``no_such_job``.
        """
        name = job if isinstance(job, str) else job.name
        found = next((one for one in self.chute.jobs if one.name == name), None)
        if found is None:
            names = ", ".join(one.name for one in self.chute.jobs) or "none"
            raise NotFound("no_such_job", f"there is no job {name!r}", hint=f"there are: {names}")
        with tempfile.TemporaryDirectory(prefix="chutes-job-") as place:
            folder = Path(place)

            async def whole() -> JobResult:
                return await found.run(folder, **job_data)

            result = self._open.call(whole)
            return JobOutput(result, {one: (folder / one).read_bytes() for one in result.files})

    @property
    def _open(self) -> anyio.from_thread.BlockingPortal:
        if self._portal is None:
            raise Invalid(
                "client_not_open",
                "the chute does not run",
                hint="with ChuteClient(chute) as client: …",
            )
        return self._portal

    def _cord(self, cord: Cord | str) -> Cord:
        name = cord if isinstance(cord, str) else cord.function
        for one in self.chute.cords:
            if name in (one.function, one.path):
                return one
        names = ", ".join(one.function for one in self.chute.cords) or "none"
        raise NotFound("no_such_cord", f"there is no cord {name!r}", hint=f"there are: {names}")


_CALL_HEADERS = {"Content-Type": "application/json", HEADER_CALL: CALL_BY_ARGUMENTS}


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    return pydantic_core.to_json({"args": list(args), "kwargs": kwargs}, inf_nan_mode="constants")


@contextlib.contextmanager
def _inside() -> Iterator[None]:
    """Be what a runner is: a place where calling a cord means its function."""
    before = os.environ.get(CONTEXT)
    os.environ[CONTEXT] = "REMOTE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[CONTEXT]
        else:
            os.environ[CONTEXT] = before
