"""Callers of a chute without an instance: what the gateway itself adds to their wait.

A gateway of its own (the `cold` child of gateway_servers.py) has a chute that nobody runs. Callers
wait in its queue until an instance, the run's origin, stands in the snapshot; each is told when its
call reached the instance, which connection included is what the gateway takes, and has its answer.
First one caller after the other, then all at once. The instance's own start is cold.py's matter.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

import uvloop
from calling import Tokens, head_of
from contenders import CORE, HERE, Contender

AT_ONCE = 50  # connections opened at once: fewer than a listener's backlog
ALONE = 20
PATIENCE_S = 25.0  # a caller of a cold chute waits for 30 s


class Waiting(Tokens):
    """A caller who notes when its answer, one token, was whole, and when the token was made."""

    made_ns = 0
    answered_ns = 0

    def on_body(self, data: bytes) -> None:
        self.tail += data

    def on_message_complete(self) -> None:
        self.answered_ns = time.monotonic_ns()
        if self.parser.get_status_code() == 200:
            self.made_ns = int(self.tail.split(b't":')[1].split(b"}")[0])
        super().on_message_complete()


class House:
    """The gateway's process: says how many wait, and has its instance or none."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        self.port, path, key = self._read()
        self.contender = Contender("cold", process.pid, self.port, path, key)

    def ask(self, order: str) -> int:
        """Give an order: `waiting` counts, `up` and `down` tell the moment in ns."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n".encode())
        self._process.stdin.flush()
        return int(self._read()[0])

    def _read(self) -> list:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def house(place: list) -> Iterator[House]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "gateway_servers.py"), "cold", json.dumps(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {CORE}),
    )
    try:
        yield House(process)
    finally:
        process.kill()
        process.wait()


async def batch(there: House, callers: int) -> dict[str, float]:
    """Have callers wait, wake them, and return microseconds: of each, and of CPU time a caller."""
    there.ask("down")
    loop = asyncio.get_running_loop()
    request = head_of(there.contender, 1, 0)
    before = there.contender.cpu_s()
    readers: list[Waiting] = []
    while len(readers) < callers:
        some = min(AT_ONCE, callers - len(readers))
        opened = [
            loop.create_connection(lambda: Waiting(request), "127.0.0.1", there.port)
            for _ in range(some)
        ]
        readers += [reader for _, reader in await asyncio.gather(*opened)]
    until = loop.time() + PATIENCE_S
    while there.ask("waiting") < callers:
        if loop.time() > until:
            raise RuntimeError("not all callers came to wait")
        await asyncio.sleep(0.01)
    queued = there.contender.cpu_s()
    up = there.ask("up")
    await asyncio.gather(*(reader.done for reader in readers))
    ended = there.contender.cpu_s()
    for reader in readers:
        reader.transport.close()
    reached = sorted((reader.made_ns - up) / 1e3 for reader in readers)
    answered = sorted((reader.answered_ns - up) / 1e3 for reader in readers)
    return {
        "first_reached_us": reached[0],
        "reached_us": reached[len(reached) // 2],
        "last_reached_us": reached[-1],
        "last_answered_us": answered[-1],
        "cpu_to_wait_us": (queued - before) / callers * 1e6,
        "cpu_woken_us": (ended - queued) / callers * 1e6,
    }


async def _all(place: list, callers: int, rounds: int) -> dict[str, object]:
    with house(place) as there:
        await batch(there, 1)  # warm
        alone = [await batch(there, 1) for _ in range(ALONE)]
        crowd = [await batch(there, callers) for _ in range(rounds)]
    return {
        "callers": callers,
        "one_caller_reached_us": _median(alone, "reached_us"),
        "one_caller_answered_us": _median(alone, "last_answered_us"),
        **{name: _median(crowd, name) for name in crowd[0]},
    }


def woken(place: list, options: argparse.Namespace) -> dict[str, object]:
    """Return the medians over the rounds."""
    return uvloop.run(_all(place, options.callers, options.rounds))


def _median(found: list[dict[str, float]], name: str) -> float:
    return round(median(one[name] for one in found), 1)
