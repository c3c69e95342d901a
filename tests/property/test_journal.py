import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_core.validator.domain.invocations import Invocation
from chutes_core.validator.gateway.journal import Journal


class Killed(BaseException):
    """The process dies here."""


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


@settings(max_examples=60, deadline=None)
@given(
    lives=st.lists(st.integers(0, 4000), min_size=1, max_size=5),
    segment_bytes=st.integers(1, 2000),
    drains=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_every_acknowledged_append_is_read_back_exactly_once_in_order(
    lives: list[int], segment_bytes: int, drains: list[bool]
):
    """However often the process dies inside a write, what it acknowledged is there, once."""
    directory = Path(tempfile.mkdtemp())
    try:
        acknowledged: list[int] = []
        drained: list[tuple[int, int]] = []
        marker = 0
        for budget, drain in zip(lives, drains, strict=False):
            journal = Journal(
                directory, "w", segment_bytes=segment_bytes, write=Killer(budget).write
            )
            try:
                while True:
                    marker += 1
                    journal.append(_invocation(marker))
                    acknowledged.append(marker)
            except Killed:
                pass
            if drain:
                batch = journal.pending(drained[-1][0] if drained else 0, 1000)
                drained += [(i.sequence, i.usage_us) for i in batch]
                journal.discard(drained[-1][0] if drained else 0)
            journal.close()
        journal = Journal(directory, "w", segment_bytes=segment_bytes)
        batch = journal.pending(drained[-1][0] if drained else 0, 1000)
        drained += [(i.sequence, i.usage_us) for i in batch]
        journal.close()
        assert [usage for _, usage in drained] == acknowledged
        assert [sequence for sequence, _ in drained] == list(range(1, len(acknowledged) + 1))
    finally:
        shutil.rmtree(directory)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 12), cut=st.integers(0, 6000), noise=st.binary(max_size=60))
def test_a_cut_and_scribbled_tail_loses_only_what_was_cut(count: int, cut: int, noise: bytes):
    """Whole records before a cut survive; garbage behind them is dropped; appending goes on."""
    directory = Path(tempfile.mkdtemp())
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
