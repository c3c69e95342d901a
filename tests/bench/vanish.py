"""Clients of the real validator that vanish at every stage of a call, in every way.

Before the head, inside it, inside a small body, inside a large one, after the request, in the midst
of a stream, in the midst of a large answer, after an answer; by a reset, by a close, by closing
their direction only. Afterwards nothing is left: no connection, no call in flight or waiting, no
byte of a body, no hold, and every call that reached an instance has one record and one charge at
most.

    python tests/bench/vanish.py [--clients N] [--at-once N] [--seed N] [--folder F] [--json]
"""

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tests.bench.books import check  # noqa: E402
from tests.bench.callers import ASKED, LARGE, Callers, Link, request, until  # noqa: E402
from tests.bench.probe import ask  # noqa: E402
from tests.bench.soak import opened, quiet  # noqa: E402
from tests.bench.stage import Stage, load_average, own_folder, stage  # noqa: E402

STEP_S = 120.0
PAUSE_S = 0.2  # between a step and the client's end
WAYS: dict[str, Callable[[Link], None]] = {
    "reset": Link.reset,
    "close": Link.fin,
    "half-close": Link.half,
}


async def before_head(link: Link, key: str) -> None:
    """Say nothing."""


async def in_head(link: Link, key: str) -> None:
    link.send(request(key, "echo", ASKED)[:60])


async def in_body(link: Link, key: str) -> None:
    link.send(request(key, "echo", ASKED)[:-10])


async def in_large_body(link: Link, key: str) -> None:
    link.send(request(key, "echo", LARGE)[:-10_000])


async def after_request(link: Link, key: str) -> None:
    link.send(request(key, "late", ASKED))


async def in_stream(link: Link, key: str) -> None:
    link.send(request(key, "tokens", ASKED))
    await link.head()
    await link.some()


async def in_large_answer(link: Link, key: str) -> None:
    link.send(request(key, "echo", LARGE))
    await link.head()


async def after_answer(link: Link, key: str) -> None:
    link.send(request(key, "echo", ASKED))
    await link.answer()


STAGES: tuple[Callable[[Link, str], Awaitable[None]], ...] = (
    before_head,
    in_head,
    in_body,
    in_large_body,
    after_request,
    in_stream,
    in_large_answer,
    after_answer,
)
KINDS = tuple(product(STAGES, WAYS))


async def run(folder: Path, *, clients: int, at_once: int, seed: int) -> dict:
    """Let clients vanish; return what was seen.

    Raises:
        AssertionError: something was left.
    """
    begun, start = load_average(), time.monotonic()
    async with stage(folder) as made:
        await made.lives.begin()
        await made.lives.serving()
        warm = Callers(made.lives.port, made.filled.api_key, seed=0, count=4, pause_s=0.0)
        await until(lambda: len(warm.seen.answered) >= 40, "the first answers")
        await warm.stop()
        await opened(made)
        before = made.held(0.0)
        kinds = await vanish(made, clients, at_once, random.Random(seed))
        after = await quiet(made, before)
        inside = await nothing_left(made)
        assert await made.lives.stop() == 0, made.lives.log.read_text()[-3000:]
    checked = check(folder, made.filled, made.book, warm.seen.ids(folder))
    # No kill in between: whatever reached an instance has its record.
    assert checked["records"] == checked["reached_an_instance"]
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average": {"begin": begun, "end": load_average()},
        "seconds": round(time.monotonic() - start, 1),
        "clients": clients,
        "at_once": at_once,
        "seed": seed,
        "kinds": dict(sorted(kinds.items())),
        "before": vars(before),
        "after": vars(after),
        "inside": inside,
        "calls_that_reached_an_instance": checked["reached_an_instance"],
        "records": checked["records"],
        "charged": checked["charged"],
        "charged_twice": checked["charged_twice"],
        "repeated_keys": checked["repeated_keys"],
    }


async def vanish(made: Stage, clients: int, at_once: int, chance: random.Random) -> Counter[str]:
    """Let clients come and vanish; return how many did in which way."""
    done: Counter[str] = Counter()
    room = asyncio.Semaphore(at_once)
    order = [KINDS[number % len(KINDS)] for number in range(clients)]
    chance.shuffle(order)

    async def one(number: int) -> None:
        step, way = order[number]
        try:
            link = await asyncio.wait_for(Link.open(made.lives.port), STEP_S)
            await asyncio.wait_for(step(link, made.filled.api_key), STEP_S)
            await asyncio.sleep(chance.uniform(0, PAUSE_S))
            WAYS[way](link)
            if way == "half-close":
                await asyncio.wait_for(_until_closed(link), STEP_S)
            done[f"{step.__name__}, {way}"] += 1
        finally:
            room.release()

    tasks = []
    for number in range(clients):
        await room.acquire()
        tasks.append(asyncio.ensure_future(one(number)))
    await asyncio.gather(*tasks)
    assert sum(done.values()) == clients
    return done


async def _until_closed(link: Link) -> None:
    """Read until the gateway has closed: it must, for nobody says anything any more."""
    try:
        while await link.some():
            continue
    except ConnectionError:
        pass
    link.abort()


async def nothing_left(made: Stage) -> dict:
    """Return the gateway's counters once they are all back at zero.

    Raises:
        TimeoutError: they are not.
    """
    end = time.monotonic() + STEP_S
    while True:
        told = await ask(made.lives.probe)
        stats = told["stats"]
        counts = {name: stats[name] for name in ("in_flight", "slots", "waiting", "body_bytes")}
        counts["held_rao"] = told["taken_rao"][made.filled.user_id]
        counts["demand_in_flight"] = sum(one["in_flight"] for one in told["demand"])
        counts["demand_waiting"] = sum(one["waiting"] for one in told["demand"])
        if not any(counts.values()):
            outcomes = {name: n for name, n in stats.items() if name.startswith("outcome_")}
            return {**counts, **outcomes}
        if time.monotonic() > end:
            raise TimeoutError(f"left behind: {counts}")
        await asyncio.sleep(0.1)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sys.stderr.write(f"seed {given.seed}\n")
    with own_folder(given.folder) as folder:
        found = asyncio.run(
            run(folder, clients=given.clients, at_once=given.at_once, seed=given.seed)
        )
    sys.stdout.write(json.dumps(found, indent=None if given.json else 1) + "\n")


if __name__ == "__main__":
    main()
