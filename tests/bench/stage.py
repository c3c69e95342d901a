"""A devnet, instances that the harness plays, a filled store and the validator's lives, put up.

async with stage(folder) as made:
    await made.lives.begin()
    await made.lives.serving()
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from chutes_core.devnet.launch import DevnetProcess
from tests.bench.ids import Ids
from tests.bench.lived_validator import Filled, Lives, fill
from tests.bench.sealed_origin import Book, Instance
from tests.bench.watching import Held, held_by

INSTANCES = 2
CONCURRENCY = 1024


@dataclass(frozen=True)
class Stage:
    """What stands."""

    book: Book
    filled: Filled
    lives: Lives
    folder: Path
    instances: tuple[int, ...]
    chain: DevnetProcess

    def held(self, at_s: float) -> Held:
        """Return what the living validator holds now."""
        return held_by(self.lives.pid, at_s, port=self.lives.port, instances=self.instances)


@contextlib.asynccontextmanager
async def stage(
    folder: Path,
    *,
    extra: dict[str, str] | None = None,
    block_seconds: float = 1.0,
    core: int | None = None,
    watched: bool = True,
) -> AsyncIterator[Stage]:
    """Put everything up in a folder; the validator's parent runs, no life does yet.

    Args:
        folder: for all that is written.
        extra: more settings of the validator.
        block_seconds: of the devnet.
        core: the validator's only one.
        watched: whether lags and blocking calls are noted, which costs CPU time.
    """
    book = Book(Ids(folder / "ids/calls"))
    instances = [Instance(book) for _ in range(INSTANCES)]
    for instance in instances:
        await instance.listen()
    filled = fill(folder / "data", instances, concurrency=CONCURRENCY)
    chain = DevnetProcess(block_seconds=block_seconds, tempo=360, log=folder / "chain.log")
    await asyncio.to_thread(chain.start)
    lives = Lives(chain, folder, extra, watched=watched)
    try:
        await lives.open(core)
        yield Stage(book, filled, lives, folder, tuple(one.port for one in instances), chain)
    finally:
        await lives.close()
        await asyncio.to_thread(chain.stop)
        for instance in instances:
            instance.close()


@contextlib.contextmanager
def own_folder(given: Path | None) -> Iterator[Path]:
    """Give a folder for everything that a run writes; a temporary one goes afterwards."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="chutes-bench-") as folder:
        yield Path(folder)


def load_average() -> list[float]:
    """Return the machine's load average, for the record."""
    return [round(one, 2) for one in os.getloadavg()]
