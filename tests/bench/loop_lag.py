"""How late the real validator's event loop is while everything else happens in its process.

First with steady calls alone; then, for as long, with images that are uploaded and built all the
time (build_stand_in.py: the validator's own share of a build), with the journal draining those
calls, and with a real miner whose GPUs (declared stand-ins of a devnet, profile `test`) prove again
and again, eight challenges at a time. The lag is measured inside of the validator's loop, 200 times
a second (probe.py), and once more without the time in which the loop's thread was ready and other
processes of a busy machine had the core. Nothing is asserted here but that all of it happened.

    python tests/bench/loop_lag.py [--seconds N] [--callers N] [--pause S] [--priority N]
        [--folder F] [--json]
"""

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import os
import platform
import sqlite3
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import httpx  # noqa: E402

from scripts.localnet import Localnet  # noqa: E402
from tests.bench.callers import Callers, until  # noqa: E402
from tests.bench.probe import SAMPLE_S, ask  # noqa: E402
from tests.bench.stage import Stage, load_average, own_folder, stage  # noqa: E402

GPUS = 8
CONTEXT_BYTES = 8 * 1024 * 1024
PERIODIC_S = 10  # the shortest that the settings allow


async def run(
    folder: Path, *, seconds: float, callers: int, pause_s: float, priority: int = 0
) -> dict:
    """Measure both stretches; ``priority`` is the validator's nice value (below 0: as root).

    Raises:
        AssertionError: something of what should have happened did not.
    """
    extra = {"PERIODIC_SECONDS": str(PERIODIC_S), "POLL_SECONDS": "1"}
    async with stage(folder, extra=extra) as made:
        await made.lives.begin()
        await made.lives.serving()
        if priority:
            for task in os.listdir(f"/proc/{made.lives.pid}/task"):
                os.setpriority(os.PRIO_PROCESS, int(task), priority)
        load = Callers(
            made.lives.port, made.filled.api_key, seed=1, count=callers, pause_s=pause_s, leaving=0
        )
        await until(lambda: len(load.seen.answered) > 50, "the first answers")
        calls_alone = await _stretch(made, seconds)
        async with _miner(made, folder):
            await until(lambda: _proven(made) >= GPUS, "the first proofs", timeout_s=300)
            before = _done(made)
            building = asyncio.ensure_future(_build(made))
            everything = await _stretch(
                made, seconds, lambda: _proven(made) >= before["challenges"] + GPUS
            )
            building.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await building
            after = _done(made)
        await load.stop()
        assert await made.lives.stop() == 0, made.lives.log.read_text()[-3000:]
    done = {name: after[name] - before[name] for name in after}
    assert min(done.values()) > 0, done
    assert done["challenges"] >= GPUS, done
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "seconds": seconds,
        "sample_s": SAMPLE_S,
        "profile": "test",
        "priority": priority,
        "statuses": dict(load.seen.statuses),
        "calls_alone": calls_alone,
        "everything": {**everything, **done},
    }


async def _stretch(made: Stage, seconds: float, enough: Callable[[], bool] | None = None) -> dict:
    """Return the lags of so many seconds, and on until ``enough`` has happened."""
    await ask(made.lives.probe)  # they begin anew
    begun, cpu, start = load_average(), _cpu_s(made.lives.pid), time.monotonic()
    await asyncio.sleep(seconds)
    if enough is not None:
        await until(enough, "everything to happen", timeout_s=300)
    seconds = time.monotonic() - start
    told = await ask(made.lives.probe)
    samples = told["lags_us"]
    assert samples
    return {
        "seconds": round(seconds, 1),
        "samples": len(samples),
        "lag": _figures([lag for lag, _ in samples]),
        "lag_without_others": _figures([lag - queued for lag, queued in samples]),
        "blocking_calls": told["blocking"],
        "cpu_share": round((_cpu_s(made.lives.pid) - cpu) / seconds, 3),
        "load_average": {"begin": begun, "end": load_average()},
    }


def _figures(lags: list[int]) -> dict[str, int]:
    lags = sorted(lags)
    return {
        **{f"p{p}_us": lags[int(len(lags) * p / 100)] for p in (50, 90, 99)},
        "p999_us": lags[int(len(lags) * 0.999)],
        "max_us": lags[-1],
        "over_20_ms": sum(lag > 20_000 for lag in lags),
    }


@contextlib.asynccontextmanager
async def _miner(made: Stage, folder: Path) -> AsyncIterator[None]:
    """Run a real miner with GPUS stand-ins."""
    net = Localnet(folder / "miners")
    net.chain = made.chain
    try:
        await asyncio.to_thread(net.register_miner, 1)
        given = {"DECLARE_GPU": f"h100_sxm:{GPUS}"}
        await asyncio.to_thread(net.start_miner, 1, extra=given)
        yield
    finally:
        for process in net._processes:
            await asyncio.to_thread(process.terminate)


async def _build(made: Stage) -> None:
    """Upload one image after the other; each is built at once."""
    context = context_of(CONTEXT_BYTES)
    async with person(made) as client:
        for number in itertools.count(1):
            await build(client, context, tag=str(number))


def person(made: Stage) -> httpx.AsyncClient:
    """Return a client of the control plane with the user's key."""
    url = f"http://127.0.0.1:{made.lives.port}"
    headers = {"authorization": f"Bearer {made.filled.api_key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=300, trust_env=False)


async def build(client: httpx.AsyncClient, context: bytes, *, tag: str) -> None:
    """Upload an image and wait until it is built."""
    fields = {"username": "bench", "name": "app", "tag": tag, "dockerfile": "FROM a/b:1\n"}
    done = await client.post("/images/", data=fields, files={"build_context": context})
    assert done.status_code == 202, done.text
    image_id = done.json()["image_id"]
    logs = await client.get(f"/images/{image_id}/logs")  # which end with the build
    assert logs.status_code == 200, logs.text


def context_of(size: int) -> bytes:
    """Return a build context with so many bytes that cannot be packed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("data.bin", os.urandom(size))
    return packed.getvalue()


@contextlib.contextmanager
def _rows(made: Stage) -> Iterator[sqlite3.Connection]:
    place = f"file:{made.lives.data / 'validator.sqlite'}?mode=ro"
    with contextlib.closing(sqlite3.connect(place, uri=True)) as rows:
        yield rows


def _proven(made: Stage) -> int:
    """Return how many GPUs were challenged and judged."""
    with _rows(made) as rows:
        found = rows.execute("SELECT record FROM proofs WHERE accepted=1").fetchall()
    return sum(len(json.loads(record)["gpus"]) for (record,) in found)


def _done(made: Stage) -> dict[str, int]:
    with _rows(made) as rows:
        (records,) = rows.execute("SELECT count(*) FROM invocations").fetchone()
        (lines,) = rows.execute("SELECT count(*) FROM image_logs").fetchone()
    return {"challenges": _proven(made), "records_drained": records, "log_lines": lines}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.05)
    parser.add_argument("--priority", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    begun = time.monotonic()
    with own_folder(given.folder) as folder:
        found = asyncio.run(
            run(
                folder,
                seconds=given.seconds,
                callers=given.callers,
                pause_s=given.pause,
                priority=given.priority,
            )
        )
    found["took_s"] = round(time.monotonic() - begun, 1)
    sys.stdout.write(json.dumps(found, indent=None if given.json else 1) + "\n")


if __name__ == "__main__":
    main()
