"""Another process's journal: only what it reported, only what is whole, each record once."""

import pytest

from chutes_core.base.errors import Conflict
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.workers.journals import JournalFiles, Journals


@pytest.fixture
def journal(tmp_path, invocation):
    """Ten records of a worker in segments of about two."""
    made = Journal(tmp_path / "w1", "w1", segment_bytes=600)
    for number in range(10):
        made.append(invocation(bytes_in=number))
    yield made
    made.close()


def numbers(records):
    return [record.sequence for record in records]


def test_only_what_the_writer_reported_is_settled(tmp_path, journal):
    """A record that was written but not reported may be taken back by its writer."""
    files = JournalFiles(tmp_path / "w1", "w1")
    files.reported = 7
    assert files.last_sequence == 7
    assert numbers(files.pending(0, 100)) == [1, 2, 3, 4, 5, 6, 7]
    assert numbers(files.pending(3, 2)) == [4, 5]
    assert files.pending(7, 100) == []


def test_of_a_dead_writer_all_that_is_whole_is_settled(tmp_path, journal):
    """A torn last record was never acknowledged."""
    newest = max((tmp_path / "w1").glob("*.journal"))
    with newest.open("ab") as file:
        file.write(b"\x00\x00\x00\x40torn")
    files = JournalFiles(tmp_path / "w1", "w1")
    assert files.last_sequence == 10
    assert numbers(files.pending(0, 100)) == list(range(1, 11))
    assert numbers(files.pending(8, 100)) == [9, 10]


def test_segments_that_the_writer_deleted_are_not_missed(tmp_path, journal):
    """What is settled may be gone."""
    journal.discard(6)
    files = JournalFiles(tmp_path / "w1", "w1")
    assert numbers(files.pending(6, 100)) == [7, 8, 9, 10]


def test_a_segment_is_read_on_where_its_reader_left_off(tmp_path, invocation):
    """In parts, and as it grows: what was read is not looked at again, so it may be anything."""
    writer = Journal(tmp_path / "w1", "w1")
    for number in range(10):
        writer.append(invocation(bytes_in=number))
    files = JournalFiles(tmp_path / "w1", "w1")
    files.reported = 10
    assert numbers(files.pending(0, 4)) == [1, 2, 3, 4]
    assert numbers(files.pending(2, 2)) == [3, 4]
    (segment,) = (tmp_path / "w1").glob("*.journal")
    with segment.open("r+b") as file:
        file.write(bytes(100))
    assert numbers(files.pending(4, 6)) == [5, 6, 7, 8, 9, 10]
    writer.append(invocation(bytes_in=11))
    assert files.pending(10, 9) == []
    files.reported = 11
    assert numbers(files.pending(10, 9)) == [11]
    assert files.pending(0, 9) == []
    writer.close()


def test_what_is_read_is_told(tmp_path, journal):
    """The leases hear of every record before it is settled."""
    told = []
    files = JournalFiles(tmp_path / "w1", "w1", seen=lambda worker, new: told.append((worker, new)))
    found = files.pending(0, 100)
    assert told == [("w1", found)]


def test_journals_of_an_earlier_run_are_adopted_once_they_are_free(tmp_path, invocation):
    """A validator with another number of workers settles what the former ones left."""
    writer = Journal(tmp_path / "w1", "w1")
    writer.append(invocation())
    journals = Journals(tmp_path)
    with pytest.raises(Conflict, match="journal_in_use"):
        journals.adopt()
    writer.close()
    journals.adopt()
    settled = []
    journals.settle(lambda files: settled.append(files.worker) or files.last_sequence)
    assert settled == ["w1"]
