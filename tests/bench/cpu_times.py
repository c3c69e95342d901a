"""CPU seconds of a process and all that it started: what waits on a busy machine hide.

From /proc. A child that has ended counts in its parent once that has waited for it; the resolution
is a clock tick (10 ms as a rule).
"""

import os
from collections import defaultdict
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PARENT, _TIMES = 1, slice(11, 15)  # of the fields behind the name: ppid; utime stime cutime cstime


def precise_cpu_seconds(pid: int) -> float:
    """Return what a process' living threads have used: to the nanosecond where the kernel tells."""
    try:
        spans = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        if spans:
            return sum(int(span.split()[0]) for span in spans) / 1e9
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[_TIMES][:2])) / TICKS_PER_S


def cpu_seconds(pid: int) -> float:
    """Return what a process, its descendants, and those that it has waited for have used."""
    ticks: dict[int, int] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        ticks[int(entry.name)] = sum(map(int, fields[_TIMES]))
        children[int(fields[_PARENT])].append(int(entry.name))
    family, total = [pid], 0
    while family:
        member = family.pop()
        total += ticks.get(member, 0)
        family += children[member]
    return total / TICKS_PER_S
