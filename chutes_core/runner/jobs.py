"""The one job that this instance runs: from its order to the files that it leaves.

Path: session (JOB, JOB_ASK, JOB_FILE) -> `JobDesk` -> sdk.job on the chute's loop. Invariant: at
the order's limit the job has ended for whoever asks, also where its code never lets go; then the
validator ends the instance, and with it all that the job has started. Nothing of the files leaves
but what is a plain file below the output folder at the moment it is read.
"""

import asyncio
import json
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Conflict, Invalid, NotFound, Unavailable
from chutes_core.runner.chute_loop import ChuteLoop
from chutes_core.runner.link import Link
from chutes_core.wire.frames import BODY_CHUNK_BYTES, FrameKind
from chutes_core.wire.job import (
    MAX_FILE_NAME,
    MAX_FILES,
    MAX_RESULT_BYTES,
    JobFile,
    JobFileQuery,
    JobOrder,
    JobReport,
)

STUCK_S = 8.0  # over the limit: what the SDK gives a job to end, and a little
MAX_DETAIL = 4000
MAX_ENTRIES = 10_000  # files, folders and links that are looked at
_PIECE_BYTES = BODY_CHUNK_BYTES


class JobEnd(Protocol):
    """What the SDK's job says of its end (sdk/job.JobResult)."""

    @property
    def status(self) -> Any: ...  # noqa: D102 # the fields of JobReport
    @property
    def result(self) -> Any: ...  # noqa: D102
    @property
    def detail(self) -> str: ...  # noqa: D102


class DeclaredPort(Protocol):
    """A port that a job listens on (sdk/job.Port)."""

    @property
    def name(self) -> str: ...  # noqa: D102 # its fields
    @property
    def port(self) -> int: ...  # noqa: D102
    @property
    def proto(self) -> str: ...  # noqa: D102


class Job(Protocol):
    """What the runner needs of a chute's job (sdk/job)."""

    @property
    def name(self) -> str:
        """The function's name."""
        ...

    @property
    def ports(self) -> Sequence[DeclaredPort]:
        """What it listens on."""
        ...

    async def run_within(
        self, output_dir: Path, limit_s: float | None, job_data: Mapping[str, Any]
    ) -> JobEnd:
        """Run it to its end or its limit."""
        ...


JobsOf = Callable[[], Iterable[Job]]
"""The jobs of the started chute; raises Unavailable before it is started."""


@dataclass
class _Running:
    order: JobOrder
    folder: Path
    begun_us: int
    ports: Sequence[DeclaredPort] = ()
    report: JobReport | None = None  # once it has ended
    over: asyncio.Event = field(default_factory=asyncio.Event)  # set then


class JobDesk:
    """Runs one job, says how it stands, and reads out its files.

    Args:
        chute_loop: where the job runs.
        jobs_of: the chute's jobs.
        clock: measures how long it ran.
        new_folder: makes its output folder.
    """

    def __init__(
        self,
        chute_loop: ChuteLoop,
        jobs_of: JobsOf,
        clock: Clock,
        *,
        new_folder: Callable[[], str] = lambda: tempfile.mkdtemp(prefix="chutes-job-"),
    ) -> None:
        self._chute_loop = chute_loop
        self._jobs_of = jobs_of
        self._clock = clock
        self._new_folder = new_folder
        self._running: _Running | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, order: JobOrder) -> None:
        """Start a job; the same order again changes nothing.

        Raises:
            NotFound: ``no_such_job``. Invalid: ``bad_job_data``.
            Conflict: ``job_runs``: this instance has or had another job.
            Unavailable: ``not_started``.
        """
        if self._running is not None:
            if self._running.order != order:
                raise Conflict("job_runs", "this instance has another job")
            return
        job = next((one for one in self._jobs_of() if one.name == order.name), None)
        if job is None:
            raise NotFound("no_such_job", f"the chute has no job {order.name!r}")
        data = _arguments(order.arguments)
        begun_us = self._clock.monotonic_us()
        running = _Running(order, Path(self._new_folder()), begun_us, tuple(job.ports))
        self._running = running
        self._task = asyncio.ensure_future(self._run(job, running, data))

    def report(self, job_id: str) -> JobReport:
        """Return how the job stands.

        Raises:
            NotFound: ``no_such_job``.
        """
        running = self._known(job_id)
        return running.report or JobReport(ran_ms=self._ran_ms(running))

    def ports(self, job_id: str) -> "tuple[Sequence[DeclaredPort], asyncio.Event]":
        """Return what a running job declares, and what is set when it has ended.

        Raises:
            NotFound: ``no_such_job``. Conflict: ``job_not_running``.
        """
        running = self._known(job_id)
        if running.report is not None:
            raise Conflict("job_not_running", "the job has ended")
        return running.ports, running.over

    async def send_file(self, link: Link, query: JobFileQuery) -> None:
        """Send one file of the report as BODY frames and END.

        Raises:
            NotFound: ``no_such_job``, or ``no_such_file``: it is not in the report, or not there.
        """
        running = self._known(query.job_id)
        named = {file.name for file in running.report.files} if running.report else set()
        if query.name not in named:
            raise NotFound("no_such_file", "the job has left no such file")
        async for piece in _pieces(running.folder / query.name):
            await link.send((FrameKind.BODY, piece))
        await link.send((FrameKind.END, b""))

    async def close(self) -> None:
        """Stop watching the job: the instance ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, job: Job, running: _Running, data: dict[str, Any]) -> None:
        try:
            await self._run_to_end(job, running, data)
        finally:
            running.over.set()

    async def _run_to_end(self, job: Job, running: _Running, data: dict[str, Any]) -> None:
        limit_s = running.order.limit_s
        ended = self._chute_loop.submit(job.run_within(running.folder, limit_s, data))
        await asyncio.wait({ended}, timeout=limit_s + STUCK_S)
        if not ended.done():
            running.report = JobReport(
                ran_ms=self._ran_ms(running),
                status="timeout",
                reason="job_timeout",
                detail=f"its code did not let go within {limit_s} s",
            )
            return
        error = ended.exception()  # not of the job itself: SystemExit, or what bypassed the SDK
        if error is not None:
            running.report = self._failed(running, "job_failed", _said(error))
            return
        try:
            running.report = await anyio.to_thread.run_sync(self._ended, running, ended.result())
        except Exception as broken:  # noqa: BLE001 # a result's text is made by the job's code
            running.report = self._failed(running, "job_failed", _said(broken))

    def _ended(self, running: _Running, end: JobEnd) -> JobReport:
        if end.status != "complete":
            reason = "job_failed" if end.status == "error" else f"job_{end.status}"
            return JobReport(
                ran_ms=self._ran_ms(running),
                status=end.status,
                reason=reason,
                detail=_plain(end.detail)[-MAX_DETAIL:],
            )
        try:
            result = result_text(end.result)
            files = files_of(running.folder) if running.order.upload else ()
        except Invalid as error:
            return self._failed(running, error.code, error.message)
        except OSError as error:  # something of the job's still works in there
            return self._failed(running, "files_unreadable", str(error))
        return JobReport(
            ran_ms=self._ran_ms(running), status="complete", result=result, files=files
        )

    def _failed(self, running: _Running, reason: str, detail: str) -> JobReport:
        return JobReport(
            ran_ms=self._ran_ms(running),
            status="error",
            reason=reason,
            detail=_plain(detail)[-MAX_DETAIL:],
        )

    def _known(self, job_id: str) -> _Running:
        if self._running is None or self._running.order.job_id != job_id:
            raise NotFound("no_such_job", "this instance has no such job")
        return self._running

    def _ran_ms(self, running: _Running) -> int:
        return max(0, self._clock.monotonic_us() - running.begun_us) // 1000


def result_text(value: Any) -> str:
    """Return what a job returned as JSON; what JSON cannot say is shown as text.

    Raises:
        Invalid: ``bad_job_result`` or ``result_too_large``.
    """
    try:
        text = json.dumps(value, default=str, ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid("bad_job_result", f"the result is no JSON: {error}") from error
    if len(text) > MAX_RESULT_BYTES:
        raise Invalid(
            "result_too_large",
            f"the result is over {MAX_RESULT_BYTES} bytes; write it to a file of output_dir",
        )
    return text


def files_of(folder: Path) -> tuple[JobFile, ...]:
    """Return the plain files below a folder, in order; links are not followed.

    Raises:
        Invalid: ``too_many_files`` or ``bad_file_name``.
    """
    found = []
    for looked_at, path in enumerate(_below(folder)):
        facts = path.lstat()
        if looked_at >= MAX_ENTRIES:
            raise Invalid("too_many_files", f"a job may leave {MAX_FILES} files; pack them")
        if stat.S_ISREG(facts.st_mode):
            name = _name_of(path.relative_to(folder))
            found.append(JobFile(name=name, size_bytes=facts.st_size))
        if len(found) > MAX_FILES:
            raise Invalid("too_many_files", f"a job may leave {MAX_FILES} files; pack them")
    return tuple(sorted(found, key=lambda file: file.name))


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        yield from (Path(here, name) for name in (*folders, *names))


def _name_of(path: Path) -> str:
    name = path.as_posix()
    printable = name.isprintable() and "\\" not in name  # half a character is not printable either
    if not printable or len(name.encode()) > MAX_FILE_NAME:
        raise Invalid("bad_file_name", f"the file {name[:60]!a} has a name that cannot be kept")
    return name


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    """Yield a plain file's bytes; a link, a device or a pipe that took its place is refused."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = await anyio.to_thread.run_sync(os.open, path, flags)
    except OSError as error:
        raise NotFound("no_such_file", f"the file cannot be read: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotFound("no_such_file", "it is no plain file")
        while piece := await anyio.to_thread.run_sync(os.read, descriptor, _PIECE_BYTES):
            yield piece
    except OSError as error:
        raise Unavailable(
            "file_unreadable", f"the file cannot be read: {error.strerror}"
        ) from error
    finally:
        os.close(descriptor)


def _arguments(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise Invalid("bad_job_data", "the arguments are no JSON") from error
    if not isinstance(data, dict) or "output_dir" in data or "self" in data:
        raise Invalid(
            "bad_job_data", "the arguments are no JSON object, or name output_dir or self"
        )
    return data


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 # an error of the job's own class need not have a text
        return type(error).__name__


def _plain(text: str) -> str:
    """Return a text without half characters, which JSON could not carry."""
    return text.encode("utf-8", "replace").decode()
