import errno
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.base.errors import Unavailable
from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.gateway.spare import Spare

# What a disk keeps is told by these tests themselves, so a sync may be nothing.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Killed(BaseException):
    """The process dies here."""


class ByHand(Spare):
    """Is made when a test says so, not by the syncing thread."""

    def prepare(self) -> None:
        pass

    def make(self) -> None:
        super().prepare()


class Killer:
    """Writes ``budget`` bytes in all, then dies in the middle of a write."""

    def __init__(self, budget: int) -> None:
        self._budget = budget

    def write(self, fd: int, data: bytes, offset: int) -> int:
        part = data[: self._budget]
        if part:
            os.pwrite(fd, part, offset)
        self._budget -= len(part)
        if len(part) < len(data):
            raise Killed
        return len(part)


def _invocation(marker: int) -> Invocation:
    return Invocation(
        worker="",
        sequence=0,
        invocation_id=str(marker),
        user_id="u" * (marker % 40),
        key_id="k",
        chute_id="c",
        launch_id="l",
        rate_id="r",
        rao_per_hour=1,
        hold_rao=1,
        free=False,
        started_at_us=0,
        usage_us=marker,
        bytes_in=0,
        bytes_out=0,
        attempts=1,
        status=200,
        outcome="ok",
    )


@settings(max_examples=40, deadline=None)
@given(
    lives=st.lists(st.integers(0, 12000), min_size=1, max_size=5),
    segment_bytes=st.integers(1, 9000),
    batches=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    ahead=st.lists(st.booleans(), min_size=1, max_size=5),
    drains=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_every_acknowledged_append_is_read_back_exactly_once_in_order(
    lives: list[int],
    segment_bytes: int,
    batches: list[int],
    ahead: list[bool],
    drains: list[bool],
):
    """However often the process dies inside a write, what it acknowledged is there, once.

    Of the write that it died in, the first records may be there, whole: nobody heard of them.
    """
    directory = Path(tempfile.mkdtemp(dir=MEMORY))
    try:
        kept: list[int] = []
        drained: list[tuple[int, int]] = []
        marker, sizes, made = 0, itertools.cycle(batches), itertools.cycle(ahead)
        for budget, drain in zip(lives, drains, strict=False):
            spare = ByHand(directory / "spare", segment_bytes)
            journal = Journal(
                directory,
                "w",
                segment_bytes=segment_bytes,
                write=Killer(budget).write,
                spare=spare,
            )
            kept = _checked(journal, kept, drained)
            try:
                while True:
                    if next(made):
                        spare.make()
                    batch = range(marker + 1, marker + 1 + next(sizes))
                    marker = batch[-1]
                    journal.append_all([dict(vars(_invocation(one))) for one in batch])
                    kept += batch
                    batch = range(0)
            except Killed:
                pass
            if drain:
                after = drained[-1][0] if drained else 0
                drained += [(i.sequence, i.usage_us) for i in journal.pending(after, 1000)]
                assert [usage for _, usage in drained] == kept
                journal.discard(drained[-1][0] if drained else 0)
            journal.close()
            kept += [-one for one in batch]  # may be there
        journal = Journal(directory, "w", segment_bytes=segment_bytes)
        assert journal.lost_records == 0
        kept = _checked(journal, kept, drained)
        after = drained[-1][0] if drained else 0
        drained += [(i.sequence, i.usage_us) for i in journal.pending(after, 1000)]
        journal.close()
        assert [usage for _, usage in drained] == kept
        assert [sequence for sequence, _ in drained] == list(range(1, len(kept) + 1))
    finally:
        shutil.rmtree(directory)


def _checked(journal: Journal, kept: list[int], drained: list[tuple[int, int]]) -> list[int]:
    """Return what a journal holds, which is what it acknowledged and the begin of what it may."""
    after = drained[-1][0] if drained else 0
    found = [usage for _, usage in drained]
    found += [one.usage_us for one in journal.pending(after, 1000)]
    sure = [one for one in kept if one > 0]
    maybe = [-one for one in kept if one < 0]
    assert found[: len(sure)] == sure
    assert found[len(sure) :] == maybe[: len(found) - len(sure)]
    assert journal.last_sequence == len(found)
    return found


@settings(max_examples=40, deadline=None)
@given(
    before=st.lists(st.integers(1, 6), max_size=8),
    behind=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    ahead=st.lists(st.booleans(), min_size=1, max_size=5),
    reached=st.randoms(use_true_random=False),
)
def test_a_power_cut_loses_nothing_durable_and_brings_nothing_back(
    before: list[int], behind: list[int], ahead: list[bool], reached: random.Random
):
    """Any sectors of what was written since the last sync may have reached the disk, or none."""
    directory = Path(tempfile.mkdtemp(dir=MEMORY))
    try:
        live, safe, cut = (directory / name for name in ("live", "safe", "cut"))
        live.mkdir()
        spare = ByHand(live / "spare", SEGMENT)
        journal = Journal(live, "w", segment_bytes=SEGMENT, spare=spare)
        made = itertools.cycle(ahead)
        for group in (before, behind):
            for count in group:
                if next(made):
                    spare.make()
                first = journal.last_sequence + 1
                journal.append_all([dict(vars(_invocation(first + one))) for one in range(count)])
            if group is before:
                durable = journal.last_sequence
                journal.pending(durable - 1, 1)
                shutil.copytree(live, safe)
        _cut(live, safe, cut, reached)
        journal.close()
        again = Journal(cut, "w", segment_bytes=SEGMENT)
        last = again.last_sequence
        assert last >= durable
        found = [i.sequence for i in again.pending(0, 1000)]
        assert found[:durable] == list(range(1, durable + 1))
        assert len(found) + again.lost_records == last
        assert all(i.usage_us == i.sequence for i in again.pending(0, 1000))
        new = [again.append(_invocation(10_000)) for _ in range(9)]
        assert new == list(range(last + 1, last + 10))
        again.close()
        third = Journal(cut, "w", segment_bytes=SEGMENT)
        assert (third.last_sequence, third.torn_bytes) == (last + 9, 0)
        assert [i.usage_us for i in third.pending(last, 1000)] == [10_000] * 9
        third.close()
    finally:
        shutil.rmtree(directory)


SEGMENT, SECTOR = 3 * 4096, 512


def _cut(live: Path, safe: Path, cut: Path, reached: random.Random) -> None:
    """Copy what is durable, and of what is not the sectors that chance lets reach the disk."""
    cut.mkdir()
    for file in live.glob("*.journal"):
        old = safe / file.name
        if not old.exists() and reached.random() < 0.3:
            continue  # the name did not
        now = file.read_bytes()
        then = old.read_bytes() if old.exists() else b""
        size = len(then) if reached.random() < 0.3 else len(now)
        share = reached.random()
        out = bytearray(then.ljust(size, b"\0"))
        for at in range(0, size, SECTOR):
            if reached.random() < share:
                out[at : at + SECTOR] = now[at : min(at + SECTOR, size)]
        (cut / file.name).write_bytes(out)


class Disk:
    """Room that chance takes and gives; writes stop where it ends."""

    def __init__(self, rooms: list[int]) -> None:
        self._rooms = itertools.cycle(rooms)
        self._next()

    def _next(self) -> None:
        self._room = next(self._rooms)

    def write(self, fd: int, data: bytes, offset: int) -> int:
        part = data[: self._room]
        self._room -= len(part)
        if not part:
            self._next()
            raise OSError(errno.ENOSPC, "full")
        return os.pwrite(fd, part, offset)

    def fill(self, fd: int, size: int) -> None:
        if size > self._room:
            self._next()
            raise OSError(errno.ENOSPC, "full")
        os.pwrite(fd, bytes(size), 0)


@settings(max_examples=40, deadline=None)
@given(
    rooms=st.lists(st.integers(0, 9000), min_size=1, max_size=6).filter(any),
    batches=st.lists(st.integers(1, 5), min_size=1, max_size=25),
    segment_bytes=st.integers(1, 9000),
    ahead=st.lists(st.booleans(), min_size=1, max_size=5),
    reopened=st.lists(st.booleans(), min_size=1, max_size=5),
)
def test_a_disk_that_fills_at_any_point_refuses_a_write_whole(
    rooms: list[int],
    batches: list[int],
    segment_bytes: int,
    ahead: list[bool],
    reopened: list[bool],
):
    """What was refused is nowhere, what was acknowledged is there, and room lets it go on."""
    directory = Path(tempfile.mkdtemp(dir=MEMORY))
    disk = Disk(rooms)

    def opened() -> tuple[Journal, ByHand]:
        spare = ByHand(directory / "spare", segment_bytes, fill=disk.fill)
        return Journal(
            directory, "w", segment_bytes=segment_bytes, write=disk.write, spare=spare
        ), spare

    try:
        journal, spare = opened()
        kept: list[int] = []
        marker, made, again = 0, itertools.cycle(ahead), itertools.cycle(reopened)
        for count in batches:
            if next(made):
                spare.make()
            batch = range(marker + 1, marker + 1 + count)
            marker += count
            try:
                first = journal.append_all([dict(vars(_invocation(one))) for one in batch])
            except Unavailable:
                assert journal.last_sequence == len(kept)
            else:
                assert first == len(kept) + 1
                kept += batch
            if next(again):
                journal.close()
                journal, spare = opened()
                assert (journal.torn_bytes, journal.lost_records) == (0, 0)
        assert [i.usage_us for i in journal.pending(0, 1000)] == kept
        journal.close()
    finally:
        shutil.rmtree(directory)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 12), cut=st.integers(0, 6000), noise=st.binary(max_size=60))
def test_a_cut_and_scribbled_tail_loses_only_what_was_cut(count: int, cut: int, noise: bytes):
    """Whole records before a cut survive; garbage behind them is dropped; appending goes on."""
    directory = Path(tempfile.mkdtemp(dir=MEMORY))
    try:
        journal = Journal(directory, "w")
        ends = [0]
        segment = next(directory.glob("*.journal"))
        for marker in range(1, count + 1):
            journal.append(_invocation(marker))
            ends.append(segment.stat().st_size)
        journal.close()
        size = min(cut, ends[-1])
        os.truncate(segment, size)
        with segment.open("ab") as file:
            file.write(noise)
        whole = sum(1 for end in ends[1:] if end <= size)
        journal = Journal(directory, "w")
        # noise can complete a cut record only by guessing its CRC; it is then that very record
        assert journal.last_sequence >= whole
        assert [i.usage_us for i in journal.pending(0, 100)][:whole] == list(range(1, whole + 1))
        sequence = journal.append(_invocation(99))
        assert journal.pending(sequence - 1, 1)[0].usage_us == 99
        journal.close()
    finally:
        shutil.rmtree(directory)


_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_journal import _invocation
from chutes_core.validator.gateway.journal import Journal
journal = Journal(Path(sys.argv[1]), "w", segment_bytes=20000)
marker = 0
while True:
    marker += 1
    print(journal.append(_invocation(marker)), flush=True)
"""


def test_kill_9_loses_no_acknowledged_record(tmp_path: Path):
    """A really killed process leaves every record whose sequence it had printed."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child.stdout:
        seen = [int(child.stdout.readline()) for _ in range(300)]
        child.kill()
        seen += [int(line) for line in child.stdout if line.endswith("\n")]
    child.wait()
    journal = Journal(tmp_path, "w")
    found = [i.sequence for i in journal.pending(0, 1_000_000)]
    assert found[: len(seen)] == seen
    assert found == list(range(1, journal.last_sequence + 1))
    journal.close()
