"""The gateway's journal: every call that it answered, on disk before the answer is complete.

Path: metering appends here, billing drains. A directory holds segments named by their first
sequence; records are one O_APPEND os.write, so a killed process loses nothing it acknowledged, and
a thread makes the records durable against power loss in groups. Invariants: sequences are
consecutive and never used twice; one process owns a directory (flock); `pending` returns only what
is durable, so that nothing drained can be undone by a power cut; a reserve file is given up when
the disk fills, so that calls in flight can still be recorded while new ones are refused.
"""

import fcntl
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path

from loguru import logger

from chutes_core.base.errors import Conflict, Invalid, Unavailable
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.gateway.records import Fields, encode_fields, encode_rest, opening, scan
from chutes_core.validator.gateway.reserve import Reserve
from chutes_core.validator.gateway.syncer import Syncer

SEGMENT_BYTES = 8 * 1024 * 1024
_SUFFIX = ".journal"


class Journal:
    """Append-only records of one gateway worker.

    Args:
        directory: owned by this journal alone; created if missing.
        worker: the name under which billing knows these sequences.
        segment_bytes: a segment is closed once it is this long.
        write: os.write, or a test's failing disk.
        reserve: disk space kept back, or a test's.

    Attributes:
        torn_bytes: what was cut off the newest segment at opening (a write that a kill cut short).
        lost_records: records that a closed segment should hold and does not (a power cut, a
            damaged disk); the segment is kept under the name ``….damaged``.

    Raises:
        Conflict: ``journal_in_use``, another process owns the directory.
        Invalid: ``journal_damaged``, two segments claim the same sequence.
    """

    def __init__(
        self,
        directory: Path,
        worker: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        write: Callable[[int, bytes], int] = os.write,
        reserve: Reserve | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.worker = worker
        self._opening = opening(worker)
        self.torn_bytes = 0
        self.lost_records = 0
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._write = write
        self._owner = _own(directory)
        try:
            self._starts = sorted(int(p.stem) for p in directory.glob(f"*{_SUFFIX}")) or [1]
            self._last = self._recover()
            self._fd = self._open(self._starts[-1])
            self._size = os.fstat(self._fd).st_size
        except BaseException:
            os.close(self._owner)
            raise
        self._lock = threading.Lock()
        self._reserve = reserve if reserve is not None else Reserve(directory / "reserve")
        self._syncer = Syncer(self._fd, directory)
        self._syncer.wake()

    @property
    def last_sequence(self) -> int:
        """Return the sequence of the newest record; 0 before the first."""
        return self._last

    def check(self) -> None:
        """Raise if a call that were dispatched now might not be recorded.

        Raises:
            Unavailable: ``journal_full``.
        """
        if self._syncer.failed or not (self._reserve.there or self._reserve.held()):
            raise _full()

    def append(self, invocation: Invocation) -> int:
        """Write one invocation and return the sequence it was given.

        The ``worker`` and ``sequence`` of the argument are replaced by the journal's.

        Raises:
            Unavailable: ``journal_full``; nothing is recorded then.
        """
        return self.append_all([dict(vars(invocation))])

    def append_all(self, records: Sequence[Fields]) -> int:
        """Write records in one write and return the sequence of the first.

        Args:
            records: fields of Invocations in their order; worker and sequence are set here.

        Raises:
            Unavailable: ``journal_full``; nothing is recorded then.
        """
        encoded = []
        for sequence, fields in enumerate(records, self._last + 1):
            fields["worker"], fields["sequence"] = self.worker, sequence
            encoded.append(encode_fields(fields, sequence))
        return self._append(b"".join(encoded), len(encoded))

    def append_rests(self, rests: Sequence[bytes]) -> int:
        """Write records in one write, and return the sequence of the first.

        Args:
            rests: the JSON of Invocations behind their sequence (`records.encode_rest`).

        Raises:
            Unavailable: ``journal_full``; nothing is recorded then.
        """
        start, first = self._opening, self._last + 1
        encoded = [encode_rest(start, number, rest) for number, rest in enumerate(rests, first)]
        return self._append(b"".join(encoded), len(encoded))

    def _append(self, data: bytes, count: int) -> int:
        if self._syncer.failed:
            raise _full()
        first = self._last + 1
        if self._size >= self._segment_bytes:
            self._rotate()
        try:
            self._write_whole(data)
        except OSError as error:
            self._reserve.release()
            if self._syncer.failed:
                raise _full() from error
            try:
                self._write_whole(data)
            except OSError as again:
                raise _full() from again
        self._size += len(data)
        self._last += count
        self._syncer.wake()
        return first

    def pending(self, after_sequence: int, limit: int) -> list[Invocation]:
        """Return the oldest records behind ``after_sequence``, durable ones only.

        Blocks on the disk: called from a thread.

        Raises:
            Unavailable: ``journal_full``, the disk refuses to make them durable.
        """
        last = self._last
        if after_sequence >= last:
            return []
        if not self._syncer.sync_now():
            raise _full()
        found: list[Invocation] = []
        starts = self._starts
        begin = max(bisect_right(starts, after_sequence + 1) - 1, 0)
        for start in starts[begin:]:
            for record in scan(self._path(start).read_bytes(), start):
                if record.sequence > last or len(found) >= limit:
                    return found
                if record.sequence > after_sequence:
                    found.append(record.invocation())
        return found

    def discard(self, up_to_sequence: int) -> None:
        """Delete the closed segments that hold nothing newer than ``up_to_sequence``."""
        with self._lock:
            keep = max(bisect_right(self._starts, up_to_sequence + 1) - 1, 0)
            dropped, self._starts = self._starts[:keep], self._starts[keep:]
        for start in dropped:
            self._path(start).unlink()

    def close(self) -> None:
        """Make everything durable and give the directory up."""
        self._syncer.close()
        os.close(self._owner)

    def _path(self, start: int) -> Path:
        return self._directory / f"{start:020d}{_SUFFIX}"

    def _recover(self) -> int:
        """Check all segments, cut the newest one's torn tail, return the last sequence."""
        last = self._starts[0] - 1
        for start in self._starts:
            if start <= last:
                raise Invalid("journal_damaged", f"record {start} stands in two segments")
            self.lost_records += start - last - 1
            last = self._recover_segment(start)
        if self.lost_records:
            logger.bind(records=self.lost_records, worker=self.worker).error("Journal lost records")
        return last

    def _recover_segment(self, start: int) -> int:
        path = self._path(start)
        data = path.read_bytes() if path.exists() else b""
        last, end = start - 1, 0
        for record in scan(data, start):
            last, end = record.sequence, record.end
        if end < len(data):
            if start == self._starts[-1]:
                self.torn_bytes = len(data) - end
                os.truncate(path, end)
            elif not (kept := path.with_suffix(".damaged")).exists():
                os.link(path, kept)
        return last

    def _open(self, start: int) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self._path(start), flags, 0o600)

    def _rotate(self) -> None:
        """Begin the next segment; if the disk refuses, keep on with the current one."""
        start = self._last + 1
        try:
            fd = self._open(start)
        except OSError:
            return
        self._fd, self._size = fd, 0
        with self._lock:
            self._starts = [*self._starts, start]
        self._syncer.follow(fd)

    def _write_whole(self, data: bytes) -> None:
        """Write all of ``data`` or leave the segment as it was.

        A tail that cannot be cut off again would hide every later record, so it stops the journal.
        """
        try:
            written = self._write(self._fd, data)
            while written < len(data):
                written += self._write(self._fd, data[written:])
        except OSError:
            self._cut_back()
            raise

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._syncer.failed = True
            raise


def _own(directory: Path) -> int:
    fd = os.open(directory / "owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise Conflict(
            "journal_in_use",
            f"another process owns the journal in {directory}",
            hint="stop it, or give this validator its own directory",
        ) from error
    return fd


def _full() -> Unavailable:
    return Unavailable(
        "journal_full",
        "the validator cannot record calls at the moment",
        hint="nothing was charged; try again later",
    )
