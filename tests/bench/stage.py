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
from chutes_core.validator.gateway.journal import Journal
from chutes_core.validator.store.database import Store
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
    folder: Path, *, extra: dict[str, str] | None = None, block_seconds: float = 1.0
) -> AsyncIterator[Stage]:
    """Put everything up in a folder; the validator's parent runs, no life does yet."""
    book = Book()
    instances = [Instance(book) for _ in range(INSTANCES)]
    for instance in instances:
        await instance.listen()
    filled = fill(folder / "data", instances, concurrency=CONCURRENCY)
    chain = DevnetProcess(block_seconds=block_seconds, tempo=360, log=folder / "chain.log")
    await asyncio.to_thread(chain.start)
    lives = Lives(chain, folder, extra)
    try:
        await lives.open()
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


@dataclass(frozen=True)
class Books:
    """What a stopped validator has written.

    Attributes:
        records: invocation id -> how many records in the store.
        charges: invocation id -> rao charged.
        undrained: records that the journal holds and the store does not.
        settled: whether the ledger conserves, agrees with its balances and the user's credit.
    """

    records: dict[str, int]
    charges: dict[str, int]
    undrained: int
    settled: bool


def books_of(folder: Path, filled: Filled) -> Books:
    """Read store and journals of a validator that has stopped."""
    undrained = 0
    store = Store(folder / "data/validator.sqlite")
    try:
        db = store._connection
        rows = db.all("SELECT invocation_id, count(*) AS n FROM invocations GROUP BY invocation_id")
        records = {row["invocation_id"]: row["n"] for row in rows}
        lines = db.all(
            "SELECT key, rao FROM entries JOIN postings USING (entry_id)"
            " WHERE kind='invocation' AND account=?",
            (f"user:{filled.user_id}:credit",),
        )
        charges: dict[str, int] = {}
        for line in lines:
            name = line["key"].removeprefix("invocation:")
            charges[name] = charges.get(name, 0) - line["rao"]
        balance = store.ledger.balance(f"user:{filled.user_id}:credit")
        settled = (
            store.ledger.total() == 0
            and not store.ledger.disagreements()
            and balance == filled.credit_rao - sum(charges.values())
        )
        for place in sorted((folder / "data/journal").iterdir()):
            journal = Journal(place, place.name)
            undrained += len(journal.pending(store.invocations.drained_of(place.name), 10**6))
            journal.close()
    finally:
        store.close()
    return Books(records, charges, undrained, settled)


def load_average() -> list[float]:
    """Return the machine's load average, for the record."""
    return [round(one, 2) for one in os.getloadavg()]
