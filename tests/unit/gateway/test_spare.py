"""The journal's next segment: made ahead, taken once, made again where the disk allows."""

import errno
import os
from pathlib import Path

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Unavailable
from chutes_core.validator.gateway.journal import PAGE_BYTES, Journal
from chutes_core.validator.gateway.records import scan
from chutes_core.validator.gateway.spare import Spare

ROOM = 3000


class Filler:
    """Counts the spares that it fills; a full disk refuses."""

    def __init__(self) -> None:
        self.made, self.full = 0, False

    def fill(self, fd: int, size: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "full")
        os.pwrite(fd, bytes(size), 0)
        self.made += 1


class Stopping:
    """A disk that keeps the most of a write and then fails, as often as it is asked."""

    stops, failed = False, False

    def write(self, fd: int, data: bytes, offset: int) -> int:
        if self.failed:
            self.failed = False
            raise OSError(errno.EIO, "broken")
        if self.stops:
            self.failed = True
            return os.pwrite(fd, data[: len(data.rstrip(b"\0")) - 5], offset)
        return os.pwrite(fd, data, offset)


class ByHand(Spare):
    """Is made when a test says so, not by the syncing thread."""

    def prepare(self) -> None:
        pass

    def make(self) -> None:
        super().prepare()


@pytest.fixture
def spare(tmp_path: Path):
    """A spare of a few records that only this test makes."""
    return ByHand(tmp_path / "spare", ROOM)


def segments(folder: Path) -> dict[str, int]:
    return {path.name.strip("0"): path.stat().st_size for path in folder.glob("*.journal")}


def numbers(journal: Journal) -> list[int]:
    return [record.sequence for record in journal.pending(0, 1000)]


def written(folder: Path, journal: Journal, invocation, records: int) -> Path:
    """Append until the second segment, or one behind it, holds so many; return it."""
    while True:
        last = journal.append(invocation())
        newest = max(folder.glob("*.journal"))
        if (start := int(newest.stem)) > 1 and last - start + 1 == records:
            return newest


def test_a_spare_is_zeros_of_its_size_and_is_made_once_until_it_is_taken(tmp_path: Path):
    """Taking it gives it the segment's name."""
    filler = Filler()
    spare = Spare(tmp_path / "spare", ROOM, fill=filler.fill)
    assert not spare.there
    spare.prepare()
    spare.prepare()
    assert (filler.made, spare.there) == (1, True)
    fd = spare.take(tmp_path / "segment")
    assert (tmp_path / "segment").read_bytes() == bytes(ROOM)
    assert spare.take(tmp_path / "other") == -1
    os.close(fd)
    spare.prepare()
    assert filler.made == 2
    spare.close()
    assert [path.name for path in tmp_path.iterdir()] == ["segment"]


def test_what_a_former_process_left_is_never_taken(tmp_path: Path):
    """A spare whose new name a power cut took away may hold records."""
    (tmp_path / "spare").write_bytes(b"records")
    spare = Spare(tmp_path / "spare", ROOM)
    assert not (tmp_path / "spare").exists()
    assert spare.take(tmp_path / "segment") == -1


def test_a_disk_that_refused_is_asked_again_after_a_second(tmp_path: Path):
    """Nothing is left of a spare that found no room."""
    filler, clock = Filler(), ManualClock()
    spare = Spare(tmp_path / "spare", ROOM, fill=filler.fill, clock=clock)
    filler.full = True
    spare.prepare()
    assert list(tmp_path.iterdir()) == []
    filler.full = False
    spare.prepare()
    assert not spare.there
    clock.advance(1)
    spare.prepare()
    assert spare.there
    spare.close()


def test_a_name_that_the_file_system_refuses_leaves_the_spare(tmp_path: Path):
    """The journal goes on without, and may take it later."""
    spare = Spare(tmp_path / "spare", ROOM)
    spare.prepare()
    assert spare.take(tmp_path / "no" / "folder") == -1
    assert spare.there
    spare.close()


def test_an_idle_journal_makes_no_spare(tmp_path: Path, invocation):
    """Room is made ahead once calls come, so that an idle validator takes none."""
    journal = Journal(tmp_path, "w")
    journal.close()
    assert segments(tmp_path) == {"1.journal": 0}


def test_records_go_into_the_spare_and_into_the_next_one(tmp_path: Path, invocation, spare):
    """A segment that is made ahead never changes its size; all records are read in order."""
    journal = Journal(tmp_path, "w", segment_bytes=ROOM, spare=spare)
    for _ in range(40):
        spare.make()
        journal.append(invocation())
    sizes = segments(tmp_path)
    assert sizes.pop("1.journal") <= ROOM
    assert set(sizes.values()) == {ROOM}
    assert len(sizes) > 2
    assert numbers(journal) == list(range(1, 41))
    journal.close()


def test_without_a_spare_a_segment_grows_up_to_its_length(tmp_path: Path, invocation, spare):
    """A syncing thread that is late costs nothing but the file's growth; then it is made use of."""
    journal = Journal(tmp_path, "w", segment_bytes=ROOM, spare=spare)
    written(tmp_path, journal, invocation, 2)
    spare.make()
    sizes = segments(tmp_path)
    assert len(sizes) == 2
    assert all(size <= ROOM for size in sizes.values())
    while len(segments(tmp_path)) == 2:
        last = journal.append(invocation())
    assert segments(tmp_path)[f"{last}.journal"] == ROOM
    assert numbers(journal) == list(range(1, last + 1))
    journal.close()


def test_a_restart_goes_on_in_the_room_that_is_there(tmp_path: Path, invocation, spare):
    """Zeros behind the last record are no torn write, and are written over."""
    journal = Journal(tmp_path, "w", segment_bytes=ROOM, spare=spare)
    spare.make()
    room = written(tmp_path, journal, invocation, 2)
    last = journal.last_sequence
    journal.close()
    before = segments(tmp_path)
    again = Journal(tmp_path, "w", segment_bytes=ROOM)
    assert (again.torn_bytes, again.lost_records, again.last_sequence) == (0, 0, last)
    assert again.append(invocation()) == last + 1
    assert segments(tmp_path) == before
    assert room.stat().st_size == ROOM
    assert numbers(again) == list(range(1, last + 2))
    again.close()


def test_a_later_record_behind_a_hole_is_cut_off_and_never_read(tmp_path: Path, invocation, spare):
    """A power cut that keeps later pages only: what they hold cannot follow a new record."""
    spare.size = 3 * PAGE_BYTES
    journal = Journal(tmp_path, "w", segment_bytes=ROOM, spare=spare)
    spare.make()
    room = written(tmp_path, journal, invocation, 20)
    kept = journal.last_sequence - 19
    journal.close()
    data = room.read_bytes()
    first, second, *_, last = scan(data, kept)
    assert last.end > first.end + PAGE_BYTES
    hole = bytes(second.end - first.end)
    room.write_bytes(data[: first.end] + hole + data[second.end :])
    again = Journal(tmp_path, "w")
    assert again.last_sequence == kept
    assert again.torn_bytes == last.end - first.end
    assert again.append(invocation()) == kept + 1
    again.close()
    third = Journal(tmp_path, "w")
    assert (third.last_sequence, third.torn_bytes) == (kept + 1, 0)
    third.close()


def test_a_write_that_is_taken_back_leaves_no_later_record(tmp_path: Path, invocation, spare):
    """Half of a batch in the room: the next record must not be followed by the batch's second."""
    disk = Stopping()
    journal = Journal(tmp_path, "w", segment_bytes=ROOM, spare=spare, write=disk.write)
    spare.make()
    written(tmp_path, journal, invocation, 2)
    kept = journal.last_sequence
    disk.stops = True
    with pytest.raises(Unavailable, match="journal_full"):
        journal.append_all([dict(vars(invocation())) for _ in range(3)])
    disk.stops = False
    assert journal.append(invocation()) == kept + 1
    journal.close()
    again = Journal(tmp_path, "w")
    assert (again.last_sequence, again.torn_bytes) == (kept + 1, 0)
    again.close()


def test_a_hole_in_a_closed_segment_is_damage(tmp_path: Path, invocation, spare):
    """Zeros where records should be are counted, other than the zeros behind the last one."""
    journal = Journal(tmp_path, "w", segment_bytes=ROOM, spare=spare)
    for _ in range(30):
        spare.make()
        journal.append(invocation())
    journal.close()
    again = Journal(tmp_path, "w")
    assert again.lost_records == 0
    again.close()
    assert list(tmp_path.glob("*.damaged")) == []
    second = sorted(tmp_path.glob("*.journal"))[1]
    start = int(second.stem)
    behind = int(sorted(tmp_path.glob("*.journal"))[2].stem)
    data = bytearray(second.read_bytes())
    data[: ROOM // 10] = bytes(ROOM // 10)
    second.write_bytes(data)
    broken = Journal(tmp_path, "w")
    assert broken.lost_records == behind - start
    assert second.with_suffix(".damaged").exists()
    assert broken.last_sequence == 30
    broken.close()
