"""The money part killed at random under load, for many seeds; the bounded version is a test.

Each seed is a chain and a folder of its own: `--kills` lives are started and killed (SIGKILL) at
moments that chance draws, while strangers pay, connections break and finality stands still. After
the last one, ledger, outboxes and chain must agree to the rao; a difference ends the run with its
seed. What happened is printed, as JSON lines with --json.

    python tests/bench/money_crash.py [--seeds N] [--first N] [--kills K] [--json]
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/protocol/chain")]

from loguru import logger  # noqa: E402
from money_crash import run  # noqa: E402

from chutes_core.devnet.launch import DevnetProcess  # noqa: E402


def main() -> None:
    """Print one line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    logger.remove()
    for seed in range(given.first, given.first + given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["BITTENSOR_RUNTIME_CACHE_DIR"] = str(Path(folder) / "cache")
            with DevnetProcess(block_seconds=0.2, tempo=20, dev_controls=True) as net:
                seen = run(net, Path(folder), seed=seed, kills=given.kills, numbers=(1, 2, 3))
        sys.stdout.write((json.dumps(asdict(seen)) if given.json else str(seen)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
