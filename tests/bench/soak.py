"""The real validator at half of its greatest load for a long time: memory and descriptors are flat.

First the greatest load is measured: as many calls as are answered, on the same stage. Then half as
many begin every second, whether or not others were answered (load.py): ordinary calls, streams,
large bodies and callers who leave, while the chain's blocks, the renewals, the settlement and the
snapshots go on as they do. Where there are two cores the validator and its children have the first,
callers and instances the others.

Every few seconds the memory and the descriptors of the validator and its children are noted. The
first WARM_S (of a short run the first sixth) do not count: caches with bounds fill, which the
whole calls of some minutes do. The trend of the rest is judged (watching.py). Descriptors are
counted without the callers' and the instances' connections, which come and go. At the end the load
stops: every connection must be given back, and every answered call must be charged once.

    python tests/bench/soak.py [--seconds N] [--calibrate S | --rate N] [--seed N] [--folder F]
        [--json]
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from chutes_core.base import compiled  # noqa: E402
from tests.bench.books import check  # noqa: E402
from tests.bench.callers import until  # noqa: E402
from tests.bench.ids import Ids  # noqa: E402
from tests.bench.load import Counts, Load, Mix  # noqa: E402
from tests.bench.probe import ask  # noqa: E402
from tests.bench.stage import Stage, load_average, own_folder, stage  # noqa: E402
from tests.bench.watching import Held, trend  # noqa: E402

WARM_S = 600.0
WARM_SHARE = 1 / 6
SAMPLES = 600
MEMORY_TOLERANCE = 0.02  # of the median, in an hour
FD_TOLERANCE = 1.0  # in an hour
QUIET_S = 120.0
OPENED_ONCE = 4
GREATEST_SLOTS = 64
SLOTS = 512
REPORT_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment."""

    held: Held
    memory: dict[str, int]
    files: dict[str, int]
    counts: dict[str, int]

    def view(self) -> dict[str, Any]:
        """Return it for JSON, in megabytes where it is bytes."""
        mb = {f"{name}_mb": round(size / 1e6, 2) for name, size in self.held.rss_of.items()}
        inside = {
            name if name in ("python_blocks", "threads") else f"{name}_mb": (
                value if name in ("python_blocks", "threads") else round(value / 1e6, 2)
            )
            for name, value in self.memory.items()
        }
        files = {f"{name}_mb": round(size / 1e6, 1) for name, size in self.files.items()}
        held = {"at_s": round(self.held.at_s, 1), "own_fds": self.held.own_fds}
        links = {"callers": self.held.callers, "links": self.held.links}
        return {**held, **links, **mb, **inside, **files, **self.counts}


async def run(
    folder: Path,
    *,
    seconds: float,
    calibrate_s: float,
    seed: int,
    per_s: float | None = None,
    pinned: bool = False,
) -> dict[str, Any]:
    """Run the load; return everything that was seen.

    Args:
        folder: for everything that is written.
        seconds: of the steady load.
        calibrate_s: how long the greatest load is measured.
        seed: of the calls.
        per_s: the steady load; None: half of the greatest.
        pinned: the validator has the first core, everything else the others.

    Raises:
        AssertionError: a call was lost or charged twice, or something stayed open.
    """
    begun = load_average()
    core = 0 if pinned and (os.cpu_count() or 1) > 1 else None
    if core is not None:
        os.sched_setaffinity(0, set(range(1, os.cpu_count() or 1)))
    answered = Ids(folder / "ids/answered")
    async with stage(folder, core=core, watched=False) as made:
        await made.lives.begin()
        await made.lives.serving()
        await _warm(made, answered)
        before = made.held(0.0)
        greatest = None
        if per_s is None:
            greatest = await _greatest(made, answered, calibrate_s, seed)
            per_s = greatest["per_s"] / 2
        _say(f"greatest: {greatest}; steady: {per_s:.0f} a second")
        load = _load(made, answered, seed=seed, slots=SLOTS, per_s=per_s)
        spent, start = Spent(made), time.monotonic()
        samples = await _watch(made, load, seconds)
        took_s = time.monotonic() - start
        used, counts = spent.shares(), load.counts
        await load.stop()
        after = await quiet(made, before)
        assert await made.lives.stop() == 0, made.lives.log.read_text()[-3000:]
    _say("comparing the books")
    warm_s = min(WARM_S, seconds * WARM_SHARE)
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "pinned": core is not None,
        "compiled": compiled.check(),
        "load_average": {"begin": begun, "end": load_average()},
        "seconds": round(took_s, 1),
        "seed": seed,
        "mix": asdict(Mix()),
        "greatest": greatest,
        "steady": {"target_per_s": round(per_s, 1), **_steady(counts, took_s), **used},
        "warm_s": warm_s,
        **judged(samples, warm_s),
        "before": vars(before),
        "after": vars(after),
        **check(folder, made.filled, made.book, answered),
        "disk_bytes": _files(folder),
        "samples": [sample.view() for sample in samples],
    }


def _load(made: Stage, answered: Ids, *, seed: int, slots: int, per_s: float | None) -> Load:
    return Load(made.lives.port, made.filled.api_key, answered, seed=seed, slots=slots, per_s=per_s)


def _steady(counts: Counts, seconds: float) -> dict[str, Any]:
    return {
        "ended_per_s": round(counts.ended / seconds, 1),
        "answered_per_s": round(counts.answered / seconds, 1),
        "kept_share": round(counts.kept_seconds / max(1, counts.seconds), 4),
        "late_calls": counts.late,
        "left": counts.left,
        "cut": counts.cut,
        "refused": counts.refused,
        "connections_opened": counts.opened,
        "statuses": {str(status): count for status, count in sorted(counts.statuses.items())},
    }


async def _greatest(made: Stage, answered: Ids, seconds: float, seed: int) -> dict[str, Any]:
    """Measure how many calls a second are answered if one follows the other."""
    load = _load(made, answered, seed=seed, slots=GREATEST_SLOTS, per_s=None)
    await asyncio.sleep(seconds / 5)
    spent, ended, start = Spent(made), load.counts.ended, time.monotonic()
    await asyncio.sleep(seconds * 4 / 5)
    per_s = (load.counts.ended - ended) / (time.monotonic() - start)
    shares = spent.shares()
    await load.stop()
    return {"per_s": round(per_s, 1), "slots": GREATEST_SLOTS, "seconds": seconds, **shares}


class Spent:
    """CPU time of a span, as shares of it."""

    def __init__(self, made: Stage) -> None:
        self._pid = made.lives.pid
        self._begun = time.monotonic(), self._validator_s(), time.process_time()

    def shares(self) -> dict[str, float]:
        """Return the validator's main process's share of a core, and this process's."""
        begun, validator_s, harness_s = self._begun
        took_s = time.monotonic() - begun
        return {
            "validator_cpu": round((self._validator_s() - validator_s) / took_s, 3),
            "harness_cpu": round((time.process_time() - harness_s) / took_s, 3),
        }

    def _validator_s(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


async def _warm(made: Stage, answered: Ids) -> None:
    """Make every kind of call once, and let the validator come to rest."""
    load = _load(made, answered, seed=0, slots=4, per_s=None)
    await until(lambda: load.counts.answered >= 200, "the first answers")
    await load.stop()
    await opened(made)


async def opened(made: Stage) -> None:
    """Wait until the validator has all open that it keeps open, and its first callers are gone.

    The last is the connection of the payments' watcher: its loop dials when it first looks, which
    may be seconds after the validator serves.
    """
    url = f"http://127.0.0.1:{made.lives.port}/health"
    async with httpx.AsyncClient(trust_env=False, timeout=QUIET_S) as client:
        while True:
            if "payments_block" in (await client.get(url)).json()["figures"]:
                break
            await asyncio.sleep(0.05)
    await until(lambda: made.held(0.0).callers == 0, "the first callers to be gone")


async def _watch(made: Stage, load: Load, seconds: float) -> list[Sample]:
    """Take samples at equal distances."""
    begun = time.monotonic()
    count = int(min(SAMPLES, max(40, seconds / 2)))
    samples: list[Sample] = []
    told = 0.0
    for number in range(1, count + 1):
        await asyncio.sleep(max(0.0, begun + seconds * number / count - time.monotonic()))
        samples.append(await _sample(made, load, time.monotonic() - begun))
        at_s = samples[-1].held.at_s
        if at_s >= told + REPORT_S:
            told = at_s
            kept = load.counts.kept_seconds / max(1, load.counts.seconds)
            _say(f"{samples[-1].view()} kept {kept:.3f}")
    return samples


async def _sample(made: Stage, load: Load, at_s: float) -> Sample:
    inside = await ask(made.lives.probe)
    stats = inside["stats"]
    return Sample(
        held=made.held(at_s),
        memory=inside["memory"],
        files=_files(made.folder),
        counts={
            "ended": load.counts.ended,
            "in_flight": stats["in_flight"],
            "unsettled": stats.get("journal_lag_records", -1),
        },
    )


def _files(folder: Path) -> dict[str, int]:
    """Return how large the validator's files are."""
    data = folder / "data"
    sizes = {"store": 0, "wal": 0, "journal": 0}
    for name, pattern in (("store", "*.sqlite"), ("wal", "*-wal"), ("journal", "journal/*/*")):
        for file in data.glob(pattern):
            try:
                sizes[name] += file.stat().st_size
            except FileNotFoundError:
                continue  # a segment that was settled meanwhile
    return sizes


async def quiet(made: Stage, before: Held) -> Held:
    """Wait until everything that a load had opened is closed again; return what is left.

    What the validator opens once and keeps may come after ``before`` was looked at; what each call
    or caller left open would be hundreds.

    Raises:
        TimeoutError: something stayed open.
    """

    end = time.monotonic() + QUIET_S
    while True:
        held = made.held(0.0)
        if (
            held.callers == 0
            and made.book.busy == 0
            and held.own_fds <= before.own_fds + OPENED_ONCE
        ):
            return held
        if time.monotonic() > end:
            told = await ask(made.lives.probe)
            stats, seen = told["stats"], made.book.busy
            raise TimeoutError(f"left open: {held}, before {before}; busy {seen}; inside {stats}")
        await asyncio.sleep(0.05)


def judged(samples: Sequence[Sample], warm_s: float) -> dict[str, Any]:
    """Return the trends behind the warm-up."""
    kept = [one.held for one in samples if one.held.at_s > warm_s]
    times = [one.at_s for one in kept]

    def of(values: Sequence[float], tolerance: float) -> dict[str, object]:
        return trend(times, values, tolerance=tolerance).view()

    def of_memory(values: Sequence[int]) -> dict[str, object]:
        return of(values, MEMORY_TOLERANCE * sorted(values)[len(values) // 2])

    return {
        "rss_bytes": of_memory([one.rss_bytes for one in kept]),
        "rss_main_bytes": of_memory([one.rss_of["main"] for one in kept]),
        "own_fds": of([one.own_fds for one in kept], FD_TOLERANCE),
        "threads": of([one.threads for one in kept], FD_TOLERANCE),
    }


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--calibrate", type=float, default=30, help="seconds")
    parser.add_argument("--rate", type=float, help="calls a second, instead of a measured half")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with own_folder(given.folder) as folder:
        found = uvloop.run(
            run(
                folder,
                seconds=given.seconds,
                calibrate_s=given.calibrate,
                seed=given.seed,
                per_s=given.rate,
                pinned=True,
            )
        )
    if not given.json:
        found.pop("samples")
    sys.stdout.write(json.dumps(found, indent=None if given.json else 1) + "\n")


if __name__ == "__main__":
    main()
