"""How long the first caller of a cold CPU chute waits when the image is there, start by start.

A network of its own, one miner with a stand-in: the echo chute is called once (which brings its
image), then its instance is killed and the next call is timed, again and again. Printed: the waits
and what they consist of as the miner's log tells it. Nothing is asserted.

    python tests/bench/cold.py [--starts N] [--poll-seconds S] [--runtime process|docker] [--json]
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from scripts.localnet import Localnet, wait_until  # noqa: E402
from scripts.runtimes import choose, ensure_base_image  # noqa: E402
from tests.e2e.people import rich_user  # noqa: E402

STEPS = ("launch was granted", "instance was started", "instance listened")
_LINE = re.compile(r"(\d\d:\d\d:\d\d\.\d+) \w+ +(.*?) \{")


def steps_of(log: str) -> dict[str, float]:
    """Return the seconds from the grant to each later step of the last launch."""
    at = {}
    for line in log.splitlines():
        match = _LINE.search(line)
        if match and match[2] in STEPS:
            at[match[2]] = datetime.strptime(match[1], "%H:%M:%S.%f")  # noqa: DTZ007 - differences
    first = at.get(STEPS[0])
    return {step: round((at[step] - first).total_seconds(), 2) for step in STEPS[1:] if step in at}


def measure(net: Localnet, starts: int, poll_seconds: float) -> dict:
    """Return the waits of so many cold starts."""
    validator = net.start_validator(1)
    net.register_miner(1)
    miner = net.start_miner(1, extra={"POLL_SECONDS": str(poll_seconds)})
    user = rich_user(net, str(validator.ready["url"]))
    user.deploy("echo")

    def call() -> float:
        began = time.perf_counter()
        url = user.url + "/c/demo-echo/echo"
        answer = httpx.post(url, json={"text": "x"}, headers=user.headers, timeout=180)
        answer.raise_for_status()
        return time.perf_counter() - began

    def launches() -> list[str]:
        said = net.ask_miner(1, "status", "--json")
        return [one["launch_id"] for one in json.loads(said.stdout)["launches"]]

    wait_until(lambda: _works(call), 180, "the first answer")
    waits, warm = [], [call() for _ in range(20)]
    for _ in range(starts):
        user.chutes("chutes", "delete", "echo", "--yes")
        wait_until(lambda: not launches(), 60, "the instance to end")
        user.deploy_built("echo")
        waits.append(round(call(), 2))
    return {
        "runtime": net.runtime,
        "poll_seconds": poll_seconds,
        "warm_call_s": round(statistics.median(warm), 4),
        "cold_call_s": waits,
        "last_start_s_from_grant": steps_of(miner.log.read_text()),
    }


def _works(call) -> bool:
    try:
        return call() > 0
    except httpx.HTTPStatusError:
        return False


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--poll-seconds", type=float, default=1.0)
    parser.add_argument("--runtime", choices=("process", "docker"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runtime = choose(options.runtime).runtime
    if runtime == "docker":
        ensure_base_image()
    folder = Path(tempfile.mkdtemp(prefix="cold-"))
    with Localnet(folder, block_seconds=0.5, tempo=40, runtime=runtime) as net:
        found = measure(net, options.starts, options.poll_seconds)
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
