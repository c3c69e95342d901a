"""The gateway's journal: every call that it answered, on disk before the answer is complete.

Path: metering appends here, billing drains. A directory holds segments named by their first
sequence; the records of one turn are one os.pwrite into room that was made ahead (spare.py; a file
that grows where there is none), so a killed process loses nothing it acknowledged, and a thread
makes the records durable against power loss in groups. Invariants: sequences are consecutive and
never used twice; one process owns a directory (flock); behind the last record of the segment that
is written lie zeros or nothing, so that no write that was cut short or taken back is ever read as
a later record; `pending` returns only what is durable, so that nothing drained can be undone by a
power cut; a reserve file is given up when the disk fills, so that calls in flight can still be
recorded while new ones are refused.
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
from chutes_core.validator.gateway.spare import Spare
from chutes_core.validator.gateway.syncer import Syncer

SEGMENT_BYTES = 2 * 1024 * 1024
PAGE_BYTES = 4096
_SUFFIX = ".journal"


class Journal:
    """Append-only records of one gateway worker.

    Args:
        directory: owned by this journal alone; created if missing.
        worker: the name under which billing knows these sequences.
        segment_bytes: the room of a segment, and the length up to which one that grows is written.
        write: os.pwrite, or a test's failing disk.
        reserve: disk space kept back, or a test's.
        spare: the next segment, or a test's.

    Attributes:
        torn_bytes: what was cut off the newest segment at opening (a write that a kill cut short),
            up to its last byte that is not zero.
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
        write: Callable[[int, bytes, int], int] = os.pwrite,
        reserve: Reserve | None = None,
        spare: Spare | None = None,
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
            self._end = self._paged = 0  # of the newest segment's records, of its pages of them
            self._last = self._recover()
            self._fd = self._open(self._starts[-1])
            self._room = os.fstat(self._fd).st_size
            self._length = max(self._room, segment_bytes)
            self._spare = spare or Spare(directory / "spare", segment_bytes)
        except BaseException:
            os.close(self._owner)
            raise
        self._lock = threading.Lock()
        self._reserve = reserve if reserve is not None else Reserve(directory / "reserve")
        self._syncer = Syncer(self._fd, directory, then=self._make_ahead)
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
        end = self._end + len(data)
        if end > self._length and self._end:
            self._rotate()
            end = self._end + len(data)
        if self._paged < end <= self._room:
            self._paged = min(-(-end // PAGE_BYTES) * PAGE_BYTES, self._room)
            data += bytes(self._paged - end)  # a page that left memory is not read to be written
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
        self._end = end
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
        self._spare.close()
        os.close(self._owner)

    def _path(self, start: int) -> Path:
        return self._directory / f"{start:020d}{_SUFFIX}"

    def _recover(self) -> int:
        """Check all segments, cut the newest one's torn tail, return the last sequence."""
        last = self._starts[0] - 1
        for start, following in zip(self._starts, [*self._starts[1:], None], strict=True):
            if start <= last:
                raise Invalid("journal_damaged", f"record {start} stands in two segments")
            last, end, data = self._read(start)
            if following is None:
                self._cut_torn(start, end, data)
            elif last + 1 < following:
                self._lost(start, following - last - 1)
        return last

    def _read(self, start: int) -> tuple[int, int, bytes]:
        """Return a segment's last sequence, the offset behind it, and all bytes."""
        path = self._path(start)
        data = path.read_bytes() if path.exists() else b""
        last, end = start - 1, 0
        for record in scan(data, start):
            last, end = record.sequence, record.end
        return last, end, data

    def _cut_torn(self, start: int, end: int, data: bytes) -> None:
        """Go on behind the last record: in the segment's own room if nothing but zeros is there."""
        self._end = end
        if torn := data[end:].rstrip(b"\0"):
            self.torn_bytes = len(torn)
            os.truncate(self._path(start), end)

    def _lost(self, start: int, records: int) -> None:
        """Count what a closed segment does not hold, and keep it as it is."""
        self.lost_records += records
        logger.bind(records=records, segment=start, worker=self.worker).error(
            "Journal lost records"
        )
        path = self._path(start)
        if path.exists() and not (kept := path.with_suffix(".damaged")).exists():
            os.link(path, kept)

    def _open(self, start: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        return os.open(self._path(start), flags, 0o600)

    def _make_ahead(self) -> None:
        """Make the next segment in time, in the syncing thread; of a journal that is written."""
        if self._end >= self._segment_bytes // 4:
            self._spare.prepare()

    def _rotate(self) -> None:
        """Begin the next segment, in the spare if there is one; else in a file that grows.

        If the disk refuses, keep on with the current one.
        """
        start = self._last + 1
        fd, room = self._spare.take(self._path(start)), self._spare.size
        if fd < 0:
            try:
                fd, room = self._open(start), 0
            except OSError:
                return
        self._fd, self._room, self._length = fd, room, max(room, self._segment_bytes)
        self._end = self._paged = 0
        with self._lock:
            self._starts = [*self._starts, start]
        self._syncer.follow(fd)

    def _write_whole(self, data: bytes) -> None:
        """Write all of ``data`` behind the last record, or leave nothing behind it.

        What cannot be taken back might be read as a later record, so it stops the journal.
        """
        try:
            written = self._write(self._fd, data, self._end)
            while written < len(data):
                written += self._write(self._fd, data[written:], self._end + written)
        except OSError:
            self._cut_back()
            raise

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self._end)
        except OSError:
            self._syncer.failed = True
            raise
        self._room = self._end


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
