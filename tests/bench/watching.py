"""What a process and its children hold, sample by sample, and whether it grows: the statistics.

A trend is judged on the medians of BLOCKS equal stretches of time, since samples a few seconds
apart are not independent of each other. Their least-squares slope has a 95 % confidence interval
by Student's t with BLOCKS - 2 degrees of freedom. "Flat" is a claim that must be shown: the whole
interval of the drift over an hour lies inside a stated tolerance. An interval that is wider than
the tolerance shows nothing, and says so.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

BLOCKS = 10
T_95 = 2.306  # two-sided, 8 degrees of freedom
LISTENING = "0A"  # include/net/tcp_states.h, in hex
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Held:
    """What a process tree holds at one moment."""

    at_s: float
    rss_bytes: int
    own_fds: int
    callers: int
    links: int
    threads: int
    processes: int
    rss_of: dict[str, int]  # each process's: "main", and its descendants in the order of their ids


def held_by(pid: int, at_s: float, *, port: int, instances: Collection[int]) -> Held:
    """Look at a process and all its descendants.

    Args:
        pid: of the validator.
        at_s: the sample's time.
        port: its public one: sockets accepted there are ``callers``.
        instances: ports of the instances: sockets connected there are ``links``. All other
            descriptors are ``own_fds``, but for the journal's next segment, which is there or not.
    """
    rss = fds = threads = processes = 0
    sockets: set[str] = set()
    rss_of: dict[str, int] = {}
    for each in (pid, *sorted(descendants(pid))):
        with suppress(OSError):
            place = Path(f"/proc/{each}")
            own = int((place / "statm").read_text().split()[1]) * PAGE_BYTES
            rss += own
            rss_of["main" if each == pid else f"child {processes}"] = own
            fds += len([one for one in (place / "fd").iterdir() if not _made_ahead(one)])
            threads += len(os.listdir(place / "task"))
            processes += 1
            sockets |= sockets_of(each)
    callers = links = 0
    for local, remote, state, inode in _connections():
        if inode in sockets and state != LISTENING:
            callers += local == port
            links += remote in instances
    return Held(at_s, rss, fds - callers - links, callers, links, threads, processes, rss_of)


def _made_ahead(link: Path) -> bool:
    """Tell whether a descriptor is the room that a journal made ahead (gateway/spare.py)."""
    with suppress(OSError):
        return os.readlink(link).endswith("/spare")
    return False


def listeners(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port."""
    return {
        inode for local, _, state, inode in _connections() if state == LISTENING and local == port
    }


def sockets_of(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    found = set()
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                name = os.readlink(link)
                if name.startswith("socket:["):
                    found.add(name[8:-1])
    return found


def _connections() -> Iterator[tuple[int, int, str, str]]:
    """Yield (local port, remote port, state, inode) of every IPv4 TCP socket of the host."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        row = line.split()
        local, remote = (int(one.rpartition(":")[2], 16) for one in row[1:3])
        yield local, remote, row[3], row[9]


def descendants(pid: int) -> list[int]:
    """Return the ids of a process's children, their children, and so on."""
    found = []
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


@dataclass(frozen=True)
class Trend:
    """How a quantity drifts in an hour, with the ends of the 95 % interval.

    ``verdict``: flat, grows, shrinks, or unclear where the interval is wider than the tolerance.
    """

    median: float
    least: float
    most: float
    per_hour: float
    low_per_hour: float
    high_per_hour: float
    tolerance_per_hour: float
    verdict: str

    def view(self) -> dict[str, object]:
        """Return it for JSON."""
        rounded = {k: round(v, 3) for k, v in asdict(self).items() if isinstance(v, float)}
        return {**rounded, "verdict": self.verdict}


def trend(times_s: Sequence[float], values: Sequence[float], *, tolerance: float) -> Trend:
    """Judge a series; ``tolerance`` is the drift in an hour that still counts as flat.

    Raises:
        ValueError: fewer than two samples a block.
    """
    if len(values) < 2 * BLOCKS:
        raise ValueError(f"{len(values)} samples are too few for {BLOCKS} blocks")
    edges = [len(values) * number // BLOCKS for number in range(BLOCKS + 1)]
    blocks = [slice(a, b) for a, b in pairwise(edges)]
    x = [mean(times_s[block]) / 3600 for block in blocks]
    y = [median(values[block]) for block in blocks]
    slope, error = _slope(x, y)
    low, high = slope - T_95 * error, slope + T_95 * error
    return Trend(
        median=float(median(values)),
        least=float(min(values)),
        most=float(max(values)),
        per_hour=slope,
        low_per_hour=low,
        high_per_hour=high,
        tolerance_per_hour=tolerance,
        verdict=_verdict(low, high, tolerance),
    )


def _slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return the least-squares slope and its standard error."""
    mean_x, mean_y = mean(x), mean(y)
    squares = sum((one - mean_x) ** 2 for one in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / squares
    rest = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return slope, (rest / (len(x) - 2) / squares) ** 0.5


def _verdict(low: float, high: float, tolerance: float) -> str:
    if -tolerance <= low and high <= tolerance:
        return "flat"
    if low > 0:
        return "grows"
    return "shrinks" if high < 0 else "unclear"
