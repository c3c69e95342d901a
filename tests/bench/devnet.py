"""Load on a devnet: clients that read and write at once, beside the same devnet at rest.

Each client has its own websocket and its own funded account, sends signed transfers at its share
of the rate and follows the new heads. Printed side by side: block times, answer times and the
process's CPU at rest and under load, extrinsics sent, included and refused, what unknown calls
were answered. Nothing is asserted: the figures are for a person to read; the bounded version of
this is tests/protocol/devnet/test_devnet_load.py.

    python tests/bench/devnet.py [--clients N] [--rate N] [--seconds S] [--json]
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/protocol/devnet")]

from devnet_load import Load, run_load  # noqa: E402

from chutes_core.devnet.launch import DevnetProcess  # noqa: E402


async def measure(load: Load, block_seconds: float, *, keep: bool) -> list[dict[str, object]]:
    """Run one devnet at rest and under load."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "chain.db" if keep else None
        with DevnetProcess(block_seconds=block_seconds, dev_controls=True, state=state) as devnet:
            idle = await run_load(devnet, Load(clients=load.clients, rate=0, seconds=load.seconds))
            busy = await run_load(devnet, load)
    return [{"run": "idle", **asdict(idle)}, {"run": "load", **asdict(busy)}]


def main() -> None:
    """Print one column for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rate", type=int, default=200, help="extrinsics a second, all together")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--block-seconds", type=float, default=1.0)
    parser.add_argument("--state", action="store_true", help="keep the chain in a file as well")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    load = Load(clients=given.clients, rate=given.rate, seconds=given.seconds)
    rows = asyncio.run(measure(load, given.block_seconds, keep=given.state))
    if given.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    for name in rows[0]:
        values = "".join(f"{row[name]!s:>14}" for row in rows)
        sys.stdout.write(f"{name.replace('_', ' '):<28}{values}\n")


if __name__ == "__main__":
    main()
