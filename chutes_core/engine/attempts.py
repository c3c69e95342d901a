"""What instances tried and the walls refused, as the kernel counts it: dropped packets, limits hit.

Path: miner/attempts -> here. The packet filter counts what each of a miner's rules dropped; control
groups count how often an instance asked for more processes or memory than it may have. Invariant:
reads only; what cannot be read is left out, never taken for zero.

Sources: iptables-save(8) for the form; the kernel's cgroup-v2 and cgroup-v1 pages for the files.
"""

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from chutes_core.engine.firewall import Run, run_tool

TO_HOST = "to_host"
TO_PRIVATE = "to_private"
PROCESSES = "processes"
MEMORY = "memory"
CGROUPS = Path("/sys/fs/cgroup")
_TOOLS = ("iptables-save", "ip6tables-save")
_LINE = re.compile(r"^\[(\d+):\d+\] -A (INPUT|DOCKER-USER) .*-j DROP")
_KINDS = {"INPUT": TO_HOST, "DOCKER-USER": TO_PRIVATE}
_PLACES = ("docker/{0}", "system.slice/docker-{0}.scope")


def dropped_packets(mark: str, run: Run | None = None) -> dict[str, int]:
    """Return how many packets the rules with this mark dropped, by where they were to go."""
    found: dict[str, int] = {}
    for tool in _TOOLS:
        try:
            done = (run or run_tool)([tool, "-c", "-t", "filter"])
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            for kind, count in parse_drops(done.stdout.splitlines(), mark):
                found[kind] = found.get(kind, 0) + count
    return found


def parse_drops(lines: Iterable[str], mark: str) -> Iterable[tuple[str, int]]:
    """Yield (where to, packets) of each dropping rule of ours.

    >>> line = '[12:720] -A INPUT -i br-x -m comment --comment "chutes 5F" -j DROP'
    >>> list(parse_drops([line], "chutes 5F"))
    [('to_host', 12)]
    """
    for line in lines:
        match = _LINE.match(line)
        if match and f'--comment "{mark}"' in line:
            yield _KINDS[match[2]], int(match[1])


def limits_hit(container_id: str, root: Path = CGROUPS) -> dict[str, int]:
    """Return how often a container ran into its bounds on processes and memory."""
    found = {}
    places = [place.format(container_id) for place in _PLACES]
    pids = [root / p / "pids.events" for p in places] + [
        root / "pids" / p / "pids.events" for p in places
    ]
    if (count := _first(pids, ("max",))) is not None:
        found[PROCESSES] = count
    memory = [root / p / "memory.events" for p in places]
    failed = [root / "memory" / p / "memory.failcnt" for p in places]
    count = _first(memory, ("max", "oom_kill"))
    count = _first(failed, ()) if count is None else count
    if count is not None:
        found[MEMORY] = count
    return found


def _first(files: Sequence[Path], names: Sequence[str]) -> int | None:
    """Return the sum of named lines of the first file that can be read; no name: its number."""
    for file in files:
        try:
            words = [line.split() for line in file.read_text().splitlines()]
            if not names:
                return int(words[0][0])
            return sum(int(value) for name, value in words if name in names)
        except (OSError, ValueError, IndexError):
            continue
    return None
