"""The journals of workers as the main process settles them: files that another process writes.

Path: worker's Journal -> segments on disk -> `JournalFiles` -> billing.settle. Invariants: of a
journal that has a writer, only what the writer reported is returned (a write that fails may be
taken back); of one without a writer, all that is whole; and only what is durable by then.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from chutes_core.base.errors import Conflict
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.records import Record, scan

_SUFFIX = ".journal"
Settle = Callable[["Journal | JournalFiles"], int]


@dataclass(frozen=True)
class _Place:
    """Where a record ends: its sequence, its segment, the offset behind it."""

    sequence: int
    start: int
    offset: int


class JournalFiles:
    """One worker's journal, read by the main process.

    Attributes:
        reported: the last sequence that a living writer told; None where there is no writer.
    """

    def __init__(
        self,
        directory: Path,
        worker: str,
        *,
        seen: Callable[[str, Iterable[Invocation]], None] | None = None,
    ) -> None:
        self.worker = worker
        self.reported: int | None = None
        self._directory = directory
        self._seen = seen or (lambda worker, records: None)
        self._place = _Place(0, 0, 0)

    @property
    def last_sequence(self) -> int:
        """Return the newest sequence that may be settled; 0 before the first."""
        if self.reported is not None:
            return self.reported
        starts = self._starts()
        last = starts[-1] - 1 if starts else 0
        for record in scan(self._path(starts[-1]).read_bytes(), starts[-1]) if starts else ():
            last = record.sequence
        return last

    def pending(self, after_sequence: int, limit: int) -> list[Invocation]:
        """Return the oldest records behind ``after_sequence``, after making them durable."""
        last = self.last_sequence
        if after_sequence >= last:
            return []
        starts = self._starts()
        found: list[Invocation] = []
        for start, behind in zip(starts, [*starts[1:], last + 1], strict=True):
            if behind <= after_sequence + 1:
                continue
            if len(found) >= limit:
                break
            for record in self._records(start, after_sequence):
                if record.sequence > last or len(found) >= limit:
                    break
                if record.sequence > after_sequence:
                    found.append(record.invocation())
                    self._place = _Place(record.sequence, start, record.end)
        self._seen(self.worker, found)
        return found

    def discard(self, up_to_sequence: int) -> None:
        """Nothing: the writer deletes what a snapshot says is settled."""

    def is_owned(self) -> bool:
        """Tell whether a process has this journal open."""
        path = self._directory / "owner"
        if not path.exists():
            return False
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def _starts(self) -> list[int]:
        return sorted(int(path.stem) for path in self._directory.glob(f"*{_SUFFIX}"))

    def _path(self, start: int) -> Path:
        return self._directory / f"{start:020d}{_SUFFIX}"

    def _records(self, start: int, after_sequence: int) -> Iterator[Record]:
        """Yield a segment's records, from behind the last one that was read if that is asked for.

        A segment has thousands of records and is settled in many parts.
        """
        place = self._place
        known = place.start == start and place.sequence == after_sequence
        offset = place.offset if known else 0
        first = after_sequence + 1 if known else start
        for record in scan(self._durable(start, offset), first):
            yield Record(record.sequence, record.body, offset + record.end)

    def _durable(self, start: int, offset: int) -> bytes:
        """Return what a segment holds from an offset on, once that is on the disk."""
        with self._path(start).open("rb") as file:
            file.seek(offset)
            data = file.read()
            os.fsync(file.fileno())
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return data


class Journals:
    """All journals of this validator, settled one after the other.

    Args:
        folder: holds one directory for each worker that there ever was.
        own: the journal of the gateway in this process, if there is one.
    """

    def __init__(self, folder: Path, own: Journal | None = None) -> None:
        self._folder = folder
        self._own = own
        self._files: dict[str, JournalFiles] = {}
        self._lock = threading.Lock()

    def add(self, files: JournalFiles) -> None:
        """Settle a worker's journal from now on."""
        self._files[files.worker] = files

    def settle(self, drain: Settle) -> int:
        """Settle everything that is pending and return how many records that were."""
        with self._lock:
            total = 0 if self._own is None else drain(self._own)
            return total + sum(drain(files) for files in tuple(self._files.values()))

    def settle_one(self, worker: str, drain: Settle) -> int:
        """Settle one worker's journal."""
        with self._lock:
            return drain(self._files[worker])

    def adopt(self) -> None:
        """Take over the journals that an earlier run of this validator left.

        Raises:
            Conflict: ``journal_in_use``, a process of the earlier run still writes one.
        """
        own = None if self._own is None else self._own.worker
        for directory in sorted(self._folder.iterdir()) if self._folder.exists() else ():
            if directory.is_dir() and directory.name not in (own, *self._files):
                self.add(JournalFiles(directory, directory.name))
        for files in self._files.values():
            if files.is_owned():
                raise Conflict(
                    "journal_in_use",
                    f"another process owns the journal of {files.worker}",
                    hint="stop it, or give this validator its own directory",
                )

    def close(self) -> None:
        """Close the journal of this process."""
        if self._own is not None:
            self._own.close()
