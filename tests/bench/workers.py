"""How throughput grows with gateway workers: the same load on 1, 2, 4, 8 processes of one port.

Each worker has a core of its own, from the first on; origins (one for each worker), load and the
main process (pictures, leases, settlement each half second) share the other cores. Beside them the
gateway in one process is measured (row 0: nothing is settled there), and all rows in turns. N
workers say something about scaling only on 2N cores and more: where there are fewer, the figure is
printed and marked. Every call is admitted, held, sealed, journalled and settled.

A ratio of throughputs says something only where the gateway's processes are what is full: so each
row tells how busy each of them was (1.0: all of its core), the main process, the origins and wrk,
and which share of the calls each worker had (the kernel gives connections out unevenly; each
worker has the same number of them at every count, on average). The main process settles as fast as
it can; what it has not settled when the load ends stays in the journals. wrk is found on the PATH
(Debian: wrk). Nothing is asserted.

    python tests/bench/workers.py [--workers 0 1 2 4 8] [--seconds S] [--rounds N] [--json]
"""

import argparse
import asyncio
import json
import os
import platform
import re
import resource
import shutil
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import uvloop

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/protocol/gateway")]

from crewed import CrewHouse, crewed  # noqa: E402

from chutes_core.base.latency import favour_latency  # noqa: E402
from chutes_core.validator.billing.settle import JournalReader  # noqa: E402
from chutes_core.validator.domain.invocations import Invocation  # noqa: E402
from chutes_core.validator.domain.snapshot import InstanceView  # noqa: E402
from chutes_core.validator.gateway.limits import GatewayLimits  # noqa: E402
from tests.bench.cpu_times import precise_cpu_seconds  # noqa: E402

CONNECTIONS = 32  # of each worker
SLOTS = 512  # of each origin
SETTLE_S = 0.5
LIMITS = GatewayLimits(key_calls_per_s=10**6, key_burst=10**6, max_idle_per_instance=SLOTS)
LUA = """
wrk.method = "POST"
wrk.body = '{"input": "a sentence of ordinary length, as one embeds it"}'
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer %s"
"""


@dataclass(frozen=True)
class Target:
    """What is loaded: where, with which key, and the processes whose time is counted.

    ``house`` is None where the gateway is one process.
    """

    workers: int
    url: str
    key: str
    gateways: tuple[int, ...]
    origins: tuple[int, ...]
    house: CrewHouse | None = None

    def sequences(self) -> list[int]:
        """Return how many calls each worker has recorded, by its last report."""
        if self.house is None:
            return [0]
        return [one.journal.reported or 0 for one in self.house.members()]

    def cpu_s(self) -> dict[str, list[float]]:
        """Return the CPU time of everything but wrk so far."""
        return {
            "gateway": [precise_cpu_seconds(pid) for pid in self.gateways],
            "origins": [precise_cpu_seconds(pid) for pid in self.origins],
            "main": [precise_cpu_seconds(os.getpid())],
            "wrk": [_seconds_of_children()],
        }


def cores_of(workers: int) -> tuple[list[int], list[int], bool]:
    """Return the cores of workers, those of everything else, and whether they are enough."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) >= 2 * workers:
        return mine[:workers], mine[workers:], True
    own = mine[: max(1, min(workers, len(mine) - 1))]
    return own, [core for core in mine if core not in own] or own, False


def pin(pid: int, cores: Sequence[int]) -> None:
    """Give a process these cores, its threads too: of the journal's, say."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[tuple[int, list]]:
    """Run a server of gateway_servers.py; yields its pid and what it says of itself."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "gateway_servers.py"), *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process.pid, json.loads(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def alone(own: Sequence[int]) -> AsyncIterator[Target]:
    """Run the gateway in one process."""
    async with child("origin") as (origin, place), child("gateway", json.dumps(place)) as made:
        pid, (port, path, key) = made
        pin(pid, own)
        yield Target(0, f"http://127.0.0.1:{port}{path}/echo", key, (pid,), (origin,))


@asynccontextmanager
async def crew(workers: int, own: Sequence[int]) -> AsyncIterator[Target]:
    """Run so many workers, each on a core of its own."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origins = [await stack.enter_async_context(child("origin")) for _ in range(workers)]
        house = await stack.enter_async_context(
            crewed(folder, workers=workers, rao=10**18, limits=LIMITS, settles=False)
        )
        pids = tuple(house.crew.pids().values())
        for number, pid in enumerate(pids):
            pin(pid, [own[number % len(own)]])
        chute_id = house.chute.chute_id
        house.world.instances[chute_id] = tuple(
            InstanceView(
                launch, chute_id, "127.0.0.1", port, bytes.fromhex(ticket), bytes.fromhex(root),
                SLOTS,
            )
            for _, (_, port, launch, ticket, root) in origins
        )  # fmt: skip
        await house.pictures.refresh()
        over = threading.Event()
        settling = asyncio.ensure_future(settle(house, over))
        try:
            url = f"{house.url}/c/{house.chute.slug}/api/echo"
            yield Target(workers, url, house.key, pids, tuple(pid for pid, _ in origins), house)
        finally:
            over.set()
            await settling


@dataclass(frozen=True)
class UntilOver:
    """A journal with nothing left to settle once the load is over."""

    files: JournalReader
    over: threading.Event

    @property
    def worker(self) -> str:
        return self.files.worker

    @property
    def last_sequence(self) -> int:
        return self.files.last_sequence

    def pending(self, after_sequence: int, limit: int) -> list[Invocation]:
        return [] if self.over.is_set() else self.files.pending(after_sequence, limit)

    def discard(self, up_to_sequence: int) -> None:
        self.files.discard(up_to_sequence)


async def settle(house: CrewHouse, over: threading.Event) -> None:
    """Settle as the validator does, until the load is over."""

    def drain(files: JournalReader) -> int:
        return house.settlement.drain(UntilOver(files, over))

    while not over.is_set():
        await asyncio.to_thread(house.crew.journals.settle, drain)
        await house.pictures.refresh()
        await asyncio.sleep(SETTLE_S)


async def load(target: Target, seconds: float, threads: int) -> int:
    """Run wrk; return how many requests were answered."""
    script = Path(tempfile.gettempdir()) / f"chutes-workers-{os.getpid()}.lua"
    script.write_text(LUA % target.key)
    process = await asyncio.create_subprocess_exec(
        *("wrk", "-t", str(threads), "-c", str(CONNECTIONS * max(1, target.workers))),
        *("-d", f"{seconds:g}s", "-s", str(script), target.url),
        stdout=asyncio.subprocess.PIPE,
    )
    out = (await process.communicate())[0].decode()
    script.unlink()
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    answered = int(re.search(r"(\d+) requests in", out)[1])
    return answered - int(refused[1] if refused else 0)


async def span(target: Target, seconds: float, threads: int) -> dict[str, object]:
    """Load for so long; return throughput, CPU time a call, and who was how busy."""
    loop = asyncio.get_running_loop()
    before, counted, begun = target.cpu_s(), target.sequences(), loop.time()
    answered = await load(target, seconds, threads)
    took_s = loop.time() - begun
    after = target.cpu_s()
    used = {
        name: [round(b - a, 3) for a, b in zip(before[name], after[name], strict=True)]
        for name in before
    }
    calls = [b - a for a, b in zip(counted, target.sequences(), strict=True)]
    return {
        "requests_per_s": round(answered / seconds),
        "cpu_us": round(sum(used["gateway"]) / max(1, answered) * 1e6, 1),
        "busy": {name: [round(one / took_s, 2) for one in each] for name, each in used.items()},
        "shares": [round(one / max(1, sum(calls)), 3) for one in calls],
    }


async def measure(workers: int, options: argparse.Namespace) -> list[dict[str, object]]:
    """Return the spans of one start of so many workers; 0: of the gateway in one process."""
    own, others, _ = cores_of(max(1, workers))
    pin(os.getpid(), others)  # what is started inherits them
    threads = max(1, min(workers, len(others)))
    try:
        async with crew(workers, own) if workers else alone(own) as target:
            await load(target, 1.0, threads)
            return [await span(target, options.seconds, threads) for _ in range(options.spans)]
    finally:
        pin(os.getpid(), own + others)


def row(workers: int, spans: list[dict[str, object]]) -> dict[str, object]:
    """Return the medians of a row, and the span that is nearest to them."""
    per_s = median(one["requests_per_s"] for one in spans)
    middle = min(spans, key=lambda one: abs(one["requests_per_s"] - per_s))
    return {
        "workers": workers,
        "requests_per_s": round(per_s),
        "spans": [one["requests_per_s"] for one in spans],
        "spans_cpu_us": [one["cpu_us"] for one in spans],
        "cpu_us": round(median(one["cpu_us"] for one in spans), 1),
        "enough_cores": cores_of(max(1, workers))[2],
        "busy": middle["busy"],
        "shares": middle["shares"],
    }


async def main(options: argparse.Namespace) -> dict[str, object]:
    favour_latency()  # as the validator's entry does
    spans: dict[int, list[dict[str, object]]] = {workers: [] for workers in options.workers}
    for _ in range(options.rounds):
        for workers in options.workers:
            spans[workers] += await measure(workers, options)
            print(workers, spans[workers][-1], file=sys.stderr, flush=True)
    rows = [row(workers, spans[workers]) for workers in options.workers]
    first = next((one for one in rows if one["workers"] == 1), rows[0])
    for one in rows:
        one["ratio"] = round(one["requests_per_s"] / max(1, first["requests_per_s"]), 2)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "connections_per_worker": CONNECTIONS,
        "load_average": os.getloadavg()[0],
        "machine": platform.platform(),
        "python": platform.python_version(),
        "rows": rows,
    }


def table(result: dict) -> str:
    lines = [f"{'workers':>8}{'requests/s':>12}{'ratio':>8}{'CPU us':>8}  busy, shares"]
    for one in result["rows"]:
        busy = " ".join(f"{name} {_shown(each)}" for name, each in one["busy"].items())
        if not one["enough_cores"]:
            cores = 2 * one["workers"]
            busy += f"  {cores} cores are needed, {result['cores']} are here: no scaling"
        lines.append(
            f"{one['workers'] or 'none':>8}{one['requests_per_s']:>12}{one['ratio']:>8.2f}"
            f"{one['cpu_us']:>8.1f}  {busy}; {_shown(one['shares'])}"
        )
    return "\n".join(lines)


def _shown(figures: Sequence[float]) -> str:
    return "/".join(f"{one:.2f}" for one in figures)


def _seconds_of_children() -> float:
    """Return the CPU time of children that have ended: between two looks, wrk's alone."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    if not shutil.which("wrk"):
        sys.exit("wrk is not on the PATH (Debian: apt install wrk)")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--spans", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measured = uvloop.run(main(arguments))
    print(json.dumps(measured, indent=1) if arguments.json else table(measured))
