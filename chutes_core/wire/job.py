"""What is said about the job of an instance over its sealed connection (wire/frames.py).

`JOB` (JobOrder) -> `OK`; `JOB_ASK` (JobQuery) -> `JOB_TOLD` (JobReport); `JOB_FILE` (JobFileQuery)
-> `BODY`*, `END`; any of them -> `ERROR`. `PORT` (PortOrder) -> `OK` or `ERROR`; after OK the
connection is a byte stream to a port of the job: `BODY`* and `END` each way, each for itself.
Invariant: everything but the order can be asked again at any time, and the same order again is
answered like the first, so a validator that restarts goes on where it was. An instance runs one job
in its life.
"""

from typing import Literal

from pydantic import Field

from chutes_core.wire.model import Message, RecordId

MAX_ARGUMENTS_BYTES = 256 * 1024
MAX_RESULT_BYTES = 256 * 1024
MAX_FILES = 500
MAX_FILE_NAME = 300  # bytes
MAX_PORT_NAME = 32

JobStatus = Literal["complete", "error", "timeout", "cancelled"]


class JobOrder(Message):
    """Run this job now; ``arguments`` is a JSON object, ``limit_s`` when it is stopped."""

    job_id: RecordId
    name: str = Field(max_length=128)
    arguments: str = Field(max_length=MAX_ARGUMENTS_BYTES)
    limit_s: int = Field(ge=1, le=86_400)
    upload: bool


class JobQuery(Message):
    """Asks how a job stands."""

    job_id: RecordId


class JobFile(Message):
    """A file that a job has left, by its path inside the output folder."""

    name: str = Field(min_length=1, max_length=MAX_FILE_NAME)
    size_bytes: int = Field(ge=0)


class JobReport(Message):
    """How a job stands: without a status it runs.

    ``reason`` is a code where it did not complete; ``result`` is JSON, empty where there is none.
    """

    ran_ms: int = Field(ge=0)
    status: JobStatus | None = None
    reason: str = Field(default="", max_length=64)
    detail: str = Field(default="", max_length=4000)
    result: str = Field(default="", max_length=MAX_RESULT_BYTES)
    files: tuple[JobFile, ...] = Field(default=(), max_length=MAX_FILES)


class PortOrder(Message):
    """Connect this connection with a declared port of a running job."""

    job_id: RecordId
    name: str = Field(min_length=1, max_length=MAX_PORT_NAME)


class JobFileQuery(Message):
    """Asks for the bytes of one of the files that the report named."""

    job_id: RecordId
    name: str = Field(min_length=1, max_length=MAX_FILE_NAME)
