"""How throughput grows with gateway workers: the same load on 1, 2, 4, 8 processes of one port.

Each worker has a core of its own, from the first on; origins (one for each worker) and load share
the other cores, the main process (pictures, leases, settlement each half second) runs there, too.
N workers say something about scaling only on 2N cores and more: where there are fewer, the figure
is printed and marked. Every call is admitted, held, sealed, journalled and settled. wrk is found on
the PATH (Debian: wrk). Nothing is asserted.

    python tests/bench/workers.py [--workers 1 2 4 8] [--seconds S] [--rounds N] [--json]
"""

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/protocol/gateway")]

from crewed import CrewHouse, crewed  # noqa: E402

from chutes_core.validator.domain.snapshot import InstanceView  # noqa: E402
from chutes_core.validator.gateway.limits import GatewayLimits  # noqa: E402

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


def cores_of(workers: int) -> tuple[list[int], list[int], bool]:
    """Return the cores of workers, those of everything else, and whether they are enough."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) >= 2 * workers:
        return mine[:workers], mine[workers:], True
    own = mine[: max(1, min(workers, len(mine) - 1))]
    return own, [core for core in mine if core not in own] or own, False


@asynccontextmanager
async def origins(count: int, cores: Sequence[int]):
    """Run instances that answer at once; yields what each says of itself."""
    started = []
    try:
        places = []
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(HERE / "gateway_servers.py"),
                "origin",
                stdout=asyncio.subprocess.PIPE,
            )
            os.sched_setaffinity(process.pid, cores)
            started.append(process)
            places.append(json.loads(await process.stdout.readline()))
        yield places
    finally:
        for process in started:
            process.kill()
            await process.wait()


async def settle(house: CrewHouse) -> None:
    while True:
        await house.settle()
        await asyncio.sleep(SETTLE_S)


async def load(house: CrewHouse, workers: int, seconds: float, cores: Sequence[int]) -> float:
    """Run wrk; return answered requests a second."""
    script = Path(tempfile.gettempdir()) / f"chutes-workers-{os.getpid()}.lua"
    script.write_text(LUA % house.key)
    threads = max(1, min(workers, len(cores)))
    process = await asyncio.create_subprocess_exec(
        *("wrk", "-t", str(threads), "-c", str(CONNECTIONS * workers), "-d", f"{seconds:g}s"),
        *("-s", str(script), f"{house.url}/c/{house.chute.slug}/api/echo"),
        stdout=asyncio.subprocess.PIPE,
    )
    os.sched_setaffinity(process.pid, cores)
    out = (await process.communicate())[0].decode()
    script.unlink()
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    answered = int(re.search(r"(\d+) requests in", out)[1])
    return (answered - int(refused[1] if refused else 0)) / seconds


async def measure(workers: int, options: argparse.Namespace) -> dict[str, object]:
    """Return the median throughput of so many workers."""
    own, others, enough = cores_of(workers)
    os.sched_setaffinity(0, others)
    try:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            places = await stack.enter_async_context(origins(workers, others))
            house = await stack.enter_async_context(
                crewed(folder, workers=workers, rao=10**18, limits=LIMITS)
            )
            for number, pid in enumerate(house.crew.pids().values()):
                os.sched_setaffinity(pid, {own[number % len(own)]})
            chute_id = house.chute.chute_id
            house.world.instances[chute_id] = tuple(
                InstanceView(
                    launch, chute_id, "127.0.0.1", port, bytes.fromhex(ticket), bytes.fromhex(root),
                    SLOTS,
                )
                for _, port, launch, ticket, root in places
            )  # fmt: skip
            await house.pictures.refresh()
            settling = asyncio.ensure_future(settle(house))
            await load(house, workers, 1.0, others)
            rates = [
                await load(house, workers, options.seconds, others) for _ in range(options.rounds)
            ]
            settling.cancel()
            await asyncio.gather(settling, return_exceptions=True)
            return {
                "workers": workers,
                "requests_per_s": round(median(rates)),
                "enough_cores": enough,
            }
    finally:
        os.sched_setaffinity(0, own + others)


async def main(options: argparse.Namespace) -> dict[str, object]:
    rows = [await measure(workers, options) for workers in options.workers]
    for row in rows:
        row["ratio"] = round(row["requests_per_s"] / max(1, rows[0]["requests_per_s"]), 2)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "machine": platform.platform(),
        "rows": rows,
    }


def table(result: dict) -> str:
    lines = [f"{'workers':>8}{'requests/s':>12}{'ratio':>8}"]
    for row in result["rows"]:
        note = ""
        if not row["enough_cores"]:
            note = (
                f"  {2 * row['workers']} cores are needed, {result['cores']} are here: no scaling"
            )
        lines.append(f"{row['workers']:>8}{row['requests_per_s']:>12}{row['ratio']:>8.2f}{note}")
    return "\n".join(lines)


if __name__ == "__main__":
    if not shutil.which("wrk"):
        sys.exit("wrk is not on the PATH (Debian: apt install wrk)")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measured = asyncio.run(main(arguments))
    print(json.dumps(measured, indent=1) if arguments.json else table(measured))
