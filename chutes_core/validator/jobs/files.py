"""Fetching what a job has left: from its instance, through the relay, sealed, onto our disk.

Runs in a thread, on a blocking socket. Invariant: the instance is believed in nothing: each file is
cut off at what is left of the run's allowance, whatever size it had announced, and a peer that
stalls or trickles is left.
"""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from chutes_core.base.errors import ProtocolError, TimedOut, TooLarge, Unavailable
from chutes_core.validator.domain.jobs import StoredFile
from chutes_core.validator.launches.instance import InstanceAddress
from chutes_core.validator.store.blobs import Blobs
from chutes_core.wire.blocking import BlockingConnection, open_blocking
from chutes_core.wire.connection import expect
from chutes_core.wire.frames import Frame, FrameKind
from chutes_core.wire.job import JobFileQuery
from chutes_core.wire.sealing import PROVEN

CONNECT_S = 10.0
STALL_S = 60.0
FILE_S = 1800.0
LOOK_S = 0.5
MIN_FREE_BYTES = 2 * 1024**3


class FileGone(ProtocolError):
    """The instance does not have, or will not give, a file that it announced."""


def fetch(
    address: InstanceAddress,
    job_id: str,
    name: str,
    blobs: Blobs,
    *,
    limit_bytes: int,
    stop: threading.Event,
) -> StoredFile:
    """Fetch one file and return how it is kept; ``stop`` cuts it off.

    Raises:
        TooLarge: ``blob_too_large``, over ``limit_bytes``.
        FileGone: the instance refused.
        Unavailable, TimedOut, ProtocolError: the connection failed.
    """
    with open_blocking(
        address.host,
        address.port,
        root=address.root,
        ticket=address.ticket,
        launch_id=address.launch_id,
        generation=PROVEN,
        timeout_s=CONNECT_S,
    ) as connection:
        query = JobFileQuery(job_id=job_id, name=name)
        connection.send(FrameKind.JOB_FILE, query.model_dump_json().encode())
        blob = blobs.put(_body(connection, stop), limit_bytes=limit_bytes)
    return StoredFile(name=name, size_bytes=blob.size_bytes, sha256=blob.sha256)


def check_room(folder: Path, size_bytes: int) -> None:
    """Check that the disk has room for a run's files.

    Raises:
        Unavailable: ``no_space``.
    """
    if shutil.disk_usage(folder).free - size_bytes < MIN_FREE_BYTES:
        raise Unavailable("no_space", "the validator's disk has no room for these files")


def check_allowance(size_bytes: int, limit_bytes: int) -> None:
    """Check what a run has announced against what is kept of one.

    Raises:
        TooLarge: ``files_too_large``.
    """
    if size_bytes > limit_bytes:
        raise TooLarge(
            "files_too_large",
            f"its files have {size_bytes} bytes; {limit_bytes} are kept",
            hint="upload less, or send it elsewhere with allow_external_egress",
        )


def _body(connection: BlockingConnection, stop: threading.Event) -> Iterator[bytes]:
    begun = time.monotonic()
    while time.monotonic() < begun + FILE_S:
        frame = _receive(connection, stop)
        if frame.kind is FrameKind.ERROR:
            raise FileGone("file_gone", "the instance refused a file that it had announced")
        if expect(frame, FrameKind.BODY, FrameKind.END).kind is FrameKind.END:
            return
        yield frame.payload
    raise TimedOut("frame_timeout", f"a file did not come within {FILE_S} s")


def _receive(connection: BlockingConnection, stop: threading.Event) -> Frame:
    waited_until = time.monotonic() + STALL_S
    while not stop.is_set():
        try:
            return connection.receive(LOOK_S)
        except TimedOut:
            if time.monotonic() >= waited_until:
                raise
    raise Unavailable("connection_lost", "the validator stops")
