import errno
import os
from pathlib import Path

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict, Unavailable
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.reserve import Reserve


class Disk:
    """A disk that can be filled: writes fail, or stop in the middle of a record."""

    def __init__(self, room: int | None = None) -> None:
        self.room = room

    def write(self, fd: int, data: bytes, offset: int) -> int:
        if self.room is None:
            return os.pwrite(fd, data, offset)
        if self.room == 0:
            raise OSError(errno.ENOSPC, "full")
        written = os.pwrite(fd, data[: self.room], offset)
        self.room -= written
        return written

    def allocate(self, fd: int, size: int) -> None:
        if self.room is not None:
            raise OSError(errno.ENOSPC, "full")


def test_appended_records_are_read_back_in_order(tmp_path: Path, invocation):
    """What was appended comes back with the journal's worker and consecutive sequences."""
    journal = Journal(tmp_path, "w1")
    assert [journal.append(invocation(user_id=name)) for name in "abc"] == [1, 2, 3]
    found = journal.pending(0, 10)
    assert [(i.worker, i.sequence, i.user_id) for i in found] == [
        ("w1", 1, "a"),
        ("w1", 2, "b"),
        ("w1", 3, "c"),
    ]
    assert [i.sequence for i in journal.pending(1, 1)] == [2]
    assert journal.pending(3, 10) == []
    journal.close()


def test_the_sequence_goes_on_after_a_restart_though_all_was_discarded(tmp_path: Path, invocation):
    """A sequence is never used twice, even when every record has been drained and deleted."""
    journal = Journal(tmp_path, "w", segment_bytes=1)
    for _ in range(5):
        journal.append(invocation())
    journal.discard(5)
    journal.close()
    again = Journal(tmp_path, "w", segment_bytes=1)
    assert again.last_sequence == 5
    assert again.append(invocation()) == 6
    again.close()


def test_discard_keeps_a_segment_that_holds_anything_newer(tmp_path: Path, invocation):
    """Only whole segments that are entirely drained go."""
    journal = Journal(tmp_path, "w", segment_bytes=800)
    for _ in range(9):
        journal.append(invocation())
    segments = len(list(tmp_path.glob("*.journal")))
    journal.discard(5)
    assert 1 < len(list(tmp_path.glob("*.journal"))) < segments
    assert [i.sequence for i in journal.pending(5, 100)] == [6, 7, 8, 9]
    journal.close()


def test_a_directory_has_one_owner(tmp_path: Path):
    """A second journal on the same directory is refused until the first gives it up."""
    journal = Journal(tmp_path, "w")
    with pytest.raises(Conflict, match="journal_in_use"):
        Journal(tmp_path, "w")
    journal.close()
    Journal(tmp_path, "w").close()


def test_a_full_disk_refuses_before_dispatch_and_recovers(tmp_path: Path, invocation):
    """When a write fails, check() refuses until the reserve can be taken again; nothing is torn."""
    disk, clock = Disk(), ManualClock()
    reserve = Reserve(tmp_path / "reserve", clock=clock, allocate=disk.allocate)
    journal = Journal(tmp_path, "w", write=disk.write, reserve=reserve)
    journal.check()
    journal.append(invocation())
    disk.room = 17
    with pytest.raises(Unavailable, match="journal_full"):
        journal.append(invocation())
    with pytest.raises(Unavailable, match="journal_full"):
        journal.check()
    disk.room = None
    with pytest.raises(Unavailable, match="journal_full"):
        journal.check()  # tried less than a second ago
    clock.advance(1)
    journal.check()
    assert journal.append(invocation(user_id="later")) == 2
    assert [i.user_id for i in journal.pending(0, 9)] == ["u", "later"]
    journal.close()


def test_the_reserve_makes_room_for_a_call_in_flight(tmp_path: Path, invocation):
    """The record of a running call is written into the space that the reserve gives up."""
    disk = Disk(room=0)
    reserve = Reserve(tmp_path / "reserve")
    assert reserve.held()
    given_up = reserve.release

    def release() -> None:
        given_up()
        disk.room = None

    reserve.release = release  # type: ignore[method-assign]
    journal = Journal(tmp_path, "w", write=disk.write, reserve=reserve)
    assert journal.append(invocation()) == 1
    assert not (tmp_path / "reserve").exists()
    journal.close()


def test_a_tail_that_cannot_be_cut_off_stops_the_journal(
    tmp_path: Path, invocation, monkeypatch: pytest.MonkeyPatch
):
    """Half a record that stays would hide all that follow, so nothing is appended behind it."""
    disk = Disk(room=9)
    journal = Journal(tmp_path, "w", write=disk.write)

    def refuse(_fd: int, _size: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(Unavailable):
        journal.append(invocation())
    disk.room = None
    with pytest.raises(Unavailable):
        journal.append(invocation())
    monkeypatch.undo()
    journal.close()
    again = Journal(tmp_path, "w")
    assert 0 < again.torn_bytes <= 9
    assert again.last_sequence == 0
    again.close()


def test_a_failed_sync_stops_the_journal(
    tmp_path: Path, invocation, monkeypatch: pytest.MonkeyPatch
):
    """After a failed fdatasync nothing counts as durable and nothing more is acknowledged."""
    journal = Journal(tmp_path, "w")
    journal.append(invocation())

    def refuse(_fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(Unavailable):
        journal.pending(0, 1)
    with pytest.raises(Unavailable):
        journal.check()
    with pytest.raises(Unavailable):
        journal.append(invocation())
    journal.close()


def test_damage_in_a_closed_segment_is_counted_and_kept(tmp_path: Path, invocation):
    """Records lost to a power cut are counted, the rest is served, the damaged file is kept."""
    journal = Journal(tmp_path, "w", segment_bytes=1200)
    for _ in range(9):
        journal.append(invocation())
    journal.close()
    first = min(tmp_path.glob("*.journal"))
    os.truncate(first, first.stat().st_size - 3)
    again = Journal(tmp_path, "w")
    assert again.lost_records == 1
    assert again.last_sequence == 9
    assert first.with_suffix(".damaged").exists()
    assert len(again.pending(0, 100)) == 8
    again.close()
