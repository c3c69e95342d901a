"""The real validator under steady calls for a long time: memory and descriptors stay flat.

Ordinary calls, streams, large bodies and callers who leave, at a steady rate, while the chain's
blocks, the renewals, the settlement and the snapshots go on as they do. Every few seconds the
memory and the descriptors of the validator and its children are noted; after the warm-up (a tenth
of the time) their trends are judged (watching.py). Descriptors are counted without the callers' and
the instances' connections, which come and go. At the end the load stops: every connection must be
given back, and every answered call must be charged once.

    python tests/bench/soak.py [--seconds N] [--callers N] [--pause S] [--seed N]
        [--folder F] [--json]
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tests.bench.callers import Callers, Seen, until  # noqa: E402
from tests.bench.probe import ask  # noqa: E402
from tests.bench.stage import Stage, books_of, load_average, own_folder, stage  # noqa: E402
from tests.bench.watching import Held, trend  # noqa: E402

WARM_SHARE = 0.1
SAMPLES = 600
MEMORY_TOLERANCE = 0.02  # of the median, in an hour
FD_TOLERANCE = 1.0  # in an hour
QUIET_S = 120.0


async def run(folder: Path, *, seconds: float, callers: int, pause_s: float, seed: int) -> dict:
    """Run the load; return everything that was seen.

    Raises:
        AssertionError: a call was lost or charged twice, or something stayed open.
    """
    begun = load_average()
    async with stage(folder) as made:
        await made.lives.begin()
        await made.lives.serving()
        await _warm(made)
        before = made.held(0.0)
        load = Callers(
            made.lives.port, made.filled.api_key, seed=seed, count=callers, pause_s=pause_s
        )
        samples = await _watch(made, seconds)
        await load.stop()
        after = await quiet(made, before)
        assert await made.lives.stop() == 0, made.lives.log.read_text()[-3000:]
    checked = check(folder, made, load.seen)
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average": {"begin": begun, "end": load_average()},
        "seconds": seconds,
        "callers": callers,
        "seed": seed,
        "calls_per_s": round(sum(load.seen.statuses.values()) / seconds, 1),
        "left_per_s": round(load.seen.left / seconds, 1),
        **judged(samples),
        "before": vars(before),
        "after": vars(after),
        **checked,
        "samples": [[round(one.at_s, 1), one.rss_bytes, one.own_fds] for one in samples],
    }


async def _warm(made: Stage) -> None:
    """Make every kind of call once, and let the validator come to rest."""
    load = Callers(made.lives.port, made.filled.api_key, seed=0, count=4, pause_s=0.0)
    await until(lambda: len(load.seen.answered) >= 40, "the first answers")
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


async def _watch(made: Stage, seconds: float) -> list[Held]:
    """Take samples at equal distances."""
    begun = time.monotonic()
    count = int(min(SAMPLES, max(40, seconds / 2)))
    samples = []
    for number in range(1, count + 1):
        await asyncio.sleep(max(0.0, begun + seconds * number / count - time.monotonic()))
        samples.append(made.held(time.monotonic() - begun))
    return samples


async def quiet(made: Stage, before: Held) -> Held:
    """Wait until everything that a load had opened is closed again; return what is left.

    Raises:
        TimeoutError: something stayed open.
    """

    end = time.monotonic() + QUIET_S
    while True:
        held = made.held(0.0)
        if held.callers == 0 and made.book.busy == 0 and held.own_fds <= before.own_fds:
            return held
        if time.monotonic() > end:
            told = await ask(made.lives.probe)
            stats, seen = told["stats"], made.book.busy
            raise TimeoutError(f"left open: {held}, before {before}; busy {seen}; inside {stats}")
        await asyncio.sleep(0.05)


def judged(samples: Sequence[Held]) -> dict:
    """Return the trends behind the warm-up."""
    kept = samples[int(len(samples) * WARM_SHARE) :]
    times = [one.at_s for one in kept]
    memory = [one.rss_bytes for one in kept]
    tolerance = MEMORY_TOLERANCE * sorted(memory)[len(memory) // 2]
    return {
        "rss_bytes": trend(times, memory, tolerance=tolerance).view(),
        "own_fds": trend(times, [one.own_fds for one in kept], tolerance=FD_TOLERANCE).view(),
        "threads": trend(times, [one.threads for one in kept], tolerance=FD_TOLERANCE).view(),
    }


def check(folder: Path, made: Stage, seen: Seen) -> dict:
    """Compare what the callers saw, the instances and the ledger.

    Raises:
        AssertionError: they differ.
    """
    books, book = books_of(folder, made.filled), made.book
    made_calls = set(seen.answered)
    lost = made_calls - set(books.charges)
    twice = [one for one, count in books.records.items() if count > 1]
    assert len(made_calls) == len(seen.answered), "an id was given twice"
    assert not lost, f"{len(lost)} answered calls were not charged, e.g. {sorted(lost)[:3]}"
    assert not twice, f"{len(twice)} calls were recorded twice, e.g. {twice[:3]}"
    assert set(books.records) <= set(book.calls), "a record of a call that no instance saw"
    assert books.settled, "the ledger does not add up"
    assert not books.undrained, f"{books.undrained} records were not settled"
    assert (book.repeated_keys, book.bad_seals, book.bad_preambles) == (0, 0, 0)
    return {
        "answered": len(made_calls),
        "charged": len(books.charges),
        "records": len(books.records),
        "lost": len(lost),
        "charged_twice": len(twice),
        "cut": seen.cut,
        "left": seen.left,
        "refused": seen.refused,
        "statuses": {str(status): count for status, count in sorted(seen.statuses.items())},
        "instance_connections": book.connections,
        "instance_busy": book.busy,
        "key_nonce_pairs": book.pairs,
        "keys": len(book.keys),
        "repeated_keys": book.repeated_keys,
        "bad_seals": book.bad_seals,
        "renewals": book.renewals,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--pause", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with own_folder(given.folder) as folder:
        found = asyncio.run(
            run(
                folder,
                seconds=given.seconds,
                callers=given.callers,
                pause_s=given.pause,
                seed=given.seed,
            )
        )
    if not given.json:
        found.pop("samples")
    sys.stdout.write(json.dumps(found, indent=None if given.json else 1) + "\n")


if __name__ == "__main__":
    main()
