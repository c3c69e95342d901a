"""kill -9 of the real validator and of its workers, at random moments under calls; a full disk.

Callers go on over all lives: ordinary calls, streams, large bodies, and some who leave. Each life
is killed at a moment that chance draws, some before they serve; the next finds its instances again,
settles what the last one had answered, and goes on. Then the disk is full (a file system that a
ballast fills where the folder lies on a small one, else a limit of the process's own file sizes):
calls get 503, and with room again they are answered. At the end every answered call is charged
once, none is recorded twice, no (key, nonce) pair was used twice, and the ledger adds up.

    python tests/bench/kill.py [--kills N] [--seed N] [--workers N] [--folder F] [--json]
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tests.bench.books import check  # noqa: E402
from tests.bench.callers import ASKED, Callers, Link, request, until  # noqa: E402
from tests.bench.stage import Stage, load_average, own_folder, stage  # noqa: E402

LIFE_S = (0.0, 1.5)  # from the moment it serves
STILLBORN = 0.15  # share of lives that are killed before they may serve
STILLBORN_S = (0.0, 0.5)
CALLERS = 8
PAUSE_S = 0.02
RECOVERY_S = 120.0
SMALL_DISK = 1024**3
IN_A_ROW = 12  # as many new connections: each goes to one of the workers
FEW_BYTES = 8192


@dataclass
class Killed:
    """What was done to the validator."""

    lives: int = 0
    kills: int = 0
    stillborn: int = 0
    worker_kills: int = 0
    in_flight_at_kills: int = 0
    disk: dict[str, object] = field(default_factory=dict)


async def run(
    folder: Path,
    *,
    kills: int,
    seed: int,
    workers: int | None = None,
    life_s: tuple[float, float] = LIFE_S,
    of_workers: Collection[int] | None = None,
) -> dict:
    """Kill and go on; return what was seen.

    Args:
        folder: for everything that is written.
        kills: how many.
        seed: of all that chance draws.
        workers: of the gateway; None: the validator's own process alone.
        life_s: the bounds of a life, from the moment it serves.
        of_workers: which kills (0 is the first) are a worker's, all others the validator's, after
            it served; None: chance draws.

    Raises:
        AssertionError: a call was lost, charged twice, or a pair was used again.
    """
    begun, start = load_average(), time.monotonic()
    chance, seen = random.Random(seed), Killed()
    extra = {} if workers is None else {"GATEWAY_WORKERS": str(workers)}
    async with stage(folder, extra=extra) as made:
        load = Callers(
            made.lives.port, made.filled.api_key, seed=seed, count=CALLERS, pause_s=PAUSE_S
        )
        while seen.kills + seen.worker_kills < kills:
            worker = None if of_workers is None else seen.kills + seen.worker_kills in of_workers
            await _one(made, chance, seen, life_s, worker)
        if not made.lives.pid:
            await _live(made, seen)
        before = len(load.seen.answered)
        await until(lambda: len(load.seen.answered) > before + 20, "answers of the last life")
        await load.stop()
        if workers is not None and workers > 1:
            await until(lambda: len(made.lives.victims()) == 1 + workers, "all workers")
        seen.disk, disk_answered = await full_disk(made)
        await until(lambda: made.book.busy == 0, "the instances to be idle")
        assert await made.lives.stop() == 0, made.lives.log.read_text()[-3000:]
    load.seen.answered += disk_answered
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average": {"begin": begun, "end": load_average()},
        "seconds": round(time.monotonic() - start, 1),
        "seed": seed,
        **vars(seen),
        **load.seen.told(),
        **check(folder, made.filled, made.book, load.seen.ids(folder)),
    }


async def _live(made: Stage, seen: Killed) -> None:
    await made.lives.begin()
    seen.lives += 1
    await made.lives.serving()


async def _one(
    made: Stage,
    chance: random.Random,
    seen: Killed,
    life_s: tuple[float, float],
    worker: bool | None,
) -> None:
    """Let the validator live for a while, and kill it or one of its workers."""
    lives = made.lives
    if not lives.pid:
        if worker is None and chance.random() < STILLBORN and seen.lives:
            await lives.begin()
            seen.lives += 1
            await asyncio.sleep(chance.uniform(*STILLBORN_S))
            seen.stillborn += 1
            seen.kills += 1
            await lives.kill()
            return
        await _live(made, seen)
    await asyncio.sleep(chance.uniform(*life_s))
    if worker:
        await until(lambda: len(lives.victims()) > 1, "a worker")
    seen.in_flight_at_kills += made.book.busy
    main, *workers = lives.victims()
    victim = chance.choice([main, *workers] if worker is None else workers if worker else [main])
    if victim == lives.pid:
        seen.kills += 1
        await lives.kill()
    else:
        seen.worker_kills += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        await until(lambda: victim not in lives.victims(), "the worker's end")


async def full_disk(made: Stage) -> tuple[dict[str, object], list[str]]:
    """Fill the disk under the living validator; calls are refused, and served again with room.

    Returns:
        What was seen, and the ids of the answered calls.

    Raises:
        AssertionError: they were not.
    """
    answered: list[str] = []
    codes: list[tuple[int, str]] = []

    async def call() -> int:
        link = await Link.open(made.lives.port)
        try:
            link.send(request(made.filled.api_key, "echo", ASKED))
            answer = await link.answer()
        except (OSError, asyncio.IncompleteReadError):
            return 0  # the record found no room: the answer must not be whole
        finally:
            link.abort()
        if answer.status == 200:
            answered.append(answer.invocation_id)
        else:
            codes.append((answer.status, answer.code))
        return answer.status

    async def call_until(status: int, times: int = 1) -> None:
        end, left = time.monotonic() + RECOVERY_S, times
        while left:
            got = await call()
            left = left - 1 if got == status else times
            assert time.monotonic() < end, f"still {got}, not {status}"

    await call_until(200)
    codes.clear()  # what it says before it has found its instances is no matter of the disk
    small = shutil.disk_usage(made.folder).total <= SMALL_DISK
    with _ballast(made.folder) if small else _file_limit(made) as how:
        await call_until(503, IN_A_ROW)
    refused = [f"{status} {code}" for status, code in codes]
    await call_until(200)
    told = {
        "how": how,
        "refused": len(refused),
        "codes": sorted(set(refused)),
        "recovered": True,
    }
    return told, answered


@contextlib.contextmanager
def _ballast(folder: Path) -> Iterator[str]:
    """Leave nothing free of the folder's file system."""
    file = folder / "ballast"
    try:
        with file.open("wb") as ballast:
            size = shutil.disk_usage(folder).free
            os.posix_fallocate(ballast.fileno(), 0, size)
        yield "a file system without room (ENOSPC)"
    finally:
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def _file_limit(made: Stage) -> Iterator[str]:
    """Let nothing be written past a few pages of a file: the validator's own limit, like no room.

    The journal's room is made ahead, so that a limit of what is there would refuse nothing.
    """
    pids = made.lives.victims()
    old = resource.prlimit(pids[0], resource.RLIMIT_FSIZE)
    try:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (FEW_BYTES, old[1]))
        yield "no file may be written past its first pages (RLIMIT_FSIZE, EFBIG)"
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, old)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sys.stderr.write(f"seed {given.seed}\n")
    with own_folder(given.folder) as folder:
        found = asyncio.run(run(folder, kills=given.kills, seed=given.seed, workers=given.workers))
    sys.stdout.write(json.dumps(found, indent=None if given.json else 1) + "\n")


if __name__ == "__main__":
    main()
