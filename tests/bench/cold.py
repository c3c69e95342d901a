"""How long the first caller of a cold CPU chute waits when the image is there, start by start.

A network of its own, one miner with a stand-in: an echo chute that goes a second after its last
call is called once (which brings its image), left alone until its instance has gone, and called
again, over and over. Printed: the waits, what each consists of as both logs tell it (seconds from
the call), and the machine's load. Nothing is asserted.

    python tests/bench/cold.py [--starts N] [--poll-seconds S] [--runtime process|docker]
        [--miner N] [--set NAME=VALUE] [--json]
"""

import argparse
import json
import os
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

from chutes_core.wire.system import ADMISSION_CHUTE_ID  # noqa: E402
from scripts.localnet import Localnet, wait_until  # noqa: E402
from scripts.runtimes import choose, ensure_base_image  # noqa: E402
from tests.e2e.people import rich_user  # noqa: E402

BRIEF = 'name="echo",\n    shutdown_after_seconds=1,\n    '
STEPS = (
    "launch was granted",
    "instance was started",
    "instance listened",
    "verdict given",
    "launch became active",
)
_LINE = re.compile(r"(\d\d:\d\d:\d\d\.\d+)[^a-zA-Z]*\w+ *[^a-z]*(.*)")


def seconds_of_day(moment: datetime) -> float:
    """Return the seconds since midnight, which is what logs tell."""
    return moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6


def steps_of(logs: list[Path], since: float) -> dict[str, float]:
    """Return the seconds from a moment to the first of each step after it."""
    found: dict[str, float] = {}
    for line in (line for log in logs for line in log.read_text().splitlines()):
        match = _LINE.search(line)
        step = next((step for step in STEPS if match and step in match[2]), None)
        if match is None or step is None:
            continue
        at = seconds_of_day(datetime.strptime(match[1], "%H:%M:%S.%f")) - since  # noqa: DTZ007
        if at >= 0 and step not in found:
            found[step] = round(at, 3)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def measure(net: Localnet, options: argparse.Namespace) -> dict:
    """Return the waits of so many cold starts."""
    number = options.miner
    validator = net.start_validator(1)
    net.register_miner(number)
    settings = dict(pair.split("=", 1) for pair in options.set)
    extra = {"POLL_SECONDS": str(options.poll_seconds), "STAND_BYS": "1", **settings}
    miner = net.start_miner(number, extra=extra)
    user = rich_user(net, str(validator.ready["url"]))
    user.deploy_as_own("echo", changes=[('name="echo",\n    im', BRIEF + "im")])

    def call() -> float:
        began = time.perf_counter()
        url = user.url + "/c/demo-echo/echo"
        answer = httpx.post(url, json={"text": "x"}, headers=user.headers, timeout=180)
        answer.raise_for_status()
        return time.perf_counter() - began

    def serving() -> bool:
        said = net.ask_miner(number, "status", "--json")
        return any(one["chute_id"] != ADMISSION_CHUTE_ID for one in _launches(said.stdout))

    wait_until(lambda: _works(call), 180, "the first answer")
    warm, starts = [call() for _ in range(20)], []
    for _ in range(options.starts):
        wait_until(lambda: not serving(), 120, "the instance to end")
        time.sleep(options.settle)
        since, load = seconds_of_day(datetime.now()), os.getloadavg()[0]  # noqa: DTZ005
        wait = round(call(), 3)
        steps = steps_of([miner.log, validator.log], since)
        starts.append({"s": wait, "load": round(load, 1), "steps_s": steps})
    waits = [start["s"] for start in starts]
    return {
        "runtime": net.runtime,
        "miner": extra,
        "cores": os.cpu_count(),
        "warm_call_s": round(statistics.median(warm), 4),
        "cold_call_s": {
            "median": statistics.median(waits),
            "least": min(waits),
            "most": max(waits),
        },
        "starts": starts,
    }


def _launches(status: str) -> list[dict]:
    return json.loads(status)["launches"]


def _works(call) -> bool:
    try:
        return call() > 0
    except httpx.HTTPStatusError:
        return False


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--poll-seconds", type=float, default=6.0)
    parser.add_argument("--miner", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="a miner's setting")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds before each call")
    parser.add_argument("--runtime", choices=("process", "docker"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runtime = choose(options.runtime).runtime
    if runtime == "docker":
        ensure_base_image()
    folder = Path(tempfile.mkdtemp(prefix="cold-"))
    with Localnet(folder, block_seconds=0.5, tempo=40, runtime=runtime) as net:
        found = measure(net, options)
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
