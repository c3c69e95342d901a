"""How long the first caller of a cold chute waits when the image is there, step by step.

A network of its own, one miner: a chute that goes a second after its last call is called once
(which brings its image), left alone until its instance has gone, and called again, over and over;
in turns by a miner that holds a stand-by and by one that holds none. Printed: for each the waits'
and the steps' medians (seconds from the call, as both logs tell them), what the proof took of
them and the CPU seconds spent meanwhile; every start with the machine's load; all of it as JSON.
Nothing is asserted.

`without the proof` is the wait less the time from listening to the verdict: what would be left if
a stand-by had been proven before (docs/adr/0130).

    python tests/bench/cold.py [--rounds N] [--starts N] [--runtime process|docker] [--json]
        [--out FILE] [--stand-bys 1 0] [--set NAME=VALUE] [--poll-seconds S] [--settle S]
    GPU_HOST_SCRIPT=tests/bench/cold.py scripts/gpu_host_run.sh [WHEELS] --gpu […]

With `--gpu` the host's own GPUs are used and the chute is gpu_matmul, whose start-up imports torch
and takes the device: after `verdict given`, it is the chute that is waited for.
"""

import argparse
import json
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from scripts.localnet import Localnet, Process, wait_until  # noqa: E402
from scripts.runtimes import choose, ensure_base_image  # noqa: E402
from tests.bench.cpu_times import cpu_seconds  # noqa: E402
from tests.e2e.people import rich_user  # noqa: E402

STEPS = (
    "launch was granted",
    "instance was started",
    "instance listened",
    "verdict given",
    "launch became active",
)
FROM_STAND_BY = "instance was started from a stand-by"
READY = "stand-by was started"
ENDED = "instance was ended"
WAIT_S = 180.0
_LINE = re.compile(r"(\d\d:\d\d:\d\d\.\d+)[^a-zA-Z]*\w+ *[^a-z]*(.*)")
_CALLS = {"echo": ("/c/demo-echo/echo", {"text": "x"}),
          "gpu_matmul": ("/c/demo-gpu-matmul/matmul", {"times": 10})}  # fmt: skip


def seconds_of_day(moment: datetime) -> float:
    """Return the seconds since midnight, which is what logs tell."""
    return moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6


def told(logs: Iterable[Path], since: float) -> list[tuple[float, str]]:
    """Return what logs tell from a moment on: seconds after it, and the text."""
    lines = []
    for line in (line for log in logs for line in log.read_text().splitlines()):
        if match := _LINE.search(line):
            at = seconds_of_day(datetime.strptime(match[1], "%H:%M:%S.%f")) - since  # noqa: DTZ007
            if at >= 0:
                lines.append((round(at, 3), match[2]))
    return sorted(lines)


def steps_of(lines: Sequence[tuple[float, str]]) -> dict[str, float]:
    """Return the seconds to the first of each step."""
    found: dict[str, float] = {}
    for at, text in lines:
        step = next((step for step in STEPS if step in text), None)
        if step is not None:
            found.setdefault(step, at)
    return found


@dataclass
class Bench:
    """One network, one user, and the miner that serves now."""

    net: Localnet
    options: argparse.Namespace
    starts: list[dict] = field(default_factory=list)

    def run(self) -> dict:
        """Return the waits of all cold starts."""
        options, net = self.options, self.net
        extra = {"LIGHT_SECONDS": "0", "ROUND_ONE_IN": "0"}  # a GPU in a challenge serves nobody
        if options.gpu:
            extra["PROFILE"] = options.profile
        self.validator = net.start_validator(1, extra=extra)
        net.register_miner(1)
        self.user = None
        warm: list[float] = []
        for number in range(options.rounds):
            variants = options.stand_bys if number % 2 == 0 else options.stand_bys[::-1]
            for stand_bys in variants:
                warm += self._turn(stand_bys)
        return self.report(warm)

    def report(self, warm: Sequence[float]) -> dict:
        """Put together what is known so far."""
        variants = {
            f"{number} stand-bys": summary([s for s in self.starts if s["stand_bys"] == number])
            for number in self.options.stand_bys
        }
        return {
            "runtime": self.net.runtime,
            "chute": self.options.chute,
            "profile": self.options.profile if self.options.gpu else "test",
            "cores": os.cpu_count(),
            "settings": {"POLL_SECONDS": self.options.poll_seconds, "set": self.options.set},
            "warm_call_s": round(statistics.median(warm), 4) if warm else None,
            **variants,
            "starts": self.starts,
        }

    def _settings(self, stand_bys: int) -> dict[str, str]:
        options = self.options
        own = {"POLL_SECONDS": str(options.poll_seconds), "STAND_BYS": str(stand_bys)}
        if options.gpu:
            own["DECLARE_GPU"] = ""
        if options.gpu_python is not None:
            own["GPU_PYTHON"] = str(options.gpu_python)
        return own | dict(pair.split("=", 1) for pair in options.set)

    def _turn(self, stand_bys: int) -> list[float]:
        """Measure with one miner process."""
        miner = self.net.start_miner(1, extra=self._settings(stand_bys))
        if self.user is None:
            self.user = rich_user(self.net, str(self.validator.ready["url"]))
            self.user.deploy_as_own(
                self.options.chute,
                changes=[
                    ("    image=image,\n", "    image=image,\n    shutdown_after_seconds=1,\n")
                ],
            )
        path, self.body = _CALLS[self.options.chute]
        with httpx.Client(timeout=WAIT_S, headers=self.user.headers) as self.client:
            self.url = self.user.url + path
            begun = now()
            wait_until(self._answers, WAIT_S, "the first answer")
            warm = [self._call() for _ in range(20)]
            for _ in range(self.options.starts):
                self._rest(miner, stand_bys, begun)
                begun = now()
                self._start(miner, stand_bys, begun)
                self._write(self.report(warm))
        miner.terminate()
        return warm

    def _rest(self, miner: Process, stand_bys: int, since: float) -> None:
        """Wait until the instance has gone, and its successor stands by where one will."""

        def rested() -> bool:
            texts = [text for _, text in told([miner.log], since)]
            ended = [n for n, text in enumerate(texts) if ENDED in text]
            return bool(ended) and (not stand_bys or any(READY in text for text in texts))

        wait_until(rested, WAIT_S, "the instance to end")
        time.sleep(self.options.settle)

    def _start(self, miner: Process, stand_bys: int, since: float) -> None:
        load, before = os.getloadavg()[0], self._cpu(miner)
        wait = self._call()
        cpu = {name: round(s - before[name], 2) for name, s in self._cpu(miner).items()}
        lines = told([miner.log, self.validator.log], since)
        steps = steps_of(lines)
        proof = steps.get("verdict given", 0.0) - steps.get("instance listened", 0.0)
        self.starts.append({
            "s": round(wait, 3),
            "without_the_proof_s": round(wait - proof, 3),
            "stand_bys": stand_bys,
            "from_stand_by": any(FROM_STAND_BY in text for _, text in lines),
            "load": round(load, 1),
            "cpu_s": cpu,
            "steps_s": steps,
        })  # fmt: skip

    def _cpu(self, miner: Process) -> dict[str, float]:
        """Return the CPU seconds so far; a process's instances are the miner's."""
        both = {"validator": self.validator, "miner and instance": miner}
        return {name: cpu_seconds(process.popen.pid) for name, process in both.items()}

    def _call(self) -> float:
        began = time.perf_counter()
        self.client.post(self.url, json=self.body).raise_for_status()
        return time.perf_counter() - began

    def _answers(self) -> bool:
        try:
            return self._call() > 0
        except httpx.HTTPStatusError:
            return False

    def _write(self, found: dict) -> None:
        if self.options.out is not None:
            self.options.out.write_text(json.dumps(found, indent=1) + "\n")


def now() -> float:
    """Return the moment as logs tell it."""
    return seconds_of_day(datetime.now())  # noqa: DTZ005 # logs tell local time


def summary(starts: Sequence[dict]) -> dict | None:
    """Return the medians of some starts."""
    if not starts:
        return None
    waits = [start["s"] for start in starts]
    steps = {
        step: round(statistics.median(all_), 3)
        for step in STEPS
        if (all_ := [s["steps_s"][step] for s in starts if step in s["steps_s"]])
    }
    return {
        "count": len(starts),
        "from_a_stand_by": sum(start["from_stand_by"] for start in starts),
        "cold_call_s": {
            "median": round(statistics.median(waits), 3),
            "least": min(waits),
            "most": max(waits),
        },
        "without_the_proof_s": round(
            statistics.median(start["without_the_proof_s"] for start in starts), 3
        ),
        "load": {
            "least": min(start["load"] for start in starts),
            "most": max(start["load"] for start in starts),
        },
        "median_cpu_s": {
            name: round(statistics.median(start["cpu_s"][name] for start in starts), 3)
            for name in starts[0]["cpu_s"]
        },
        "median_steps_s": steps,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="turns of each variant")
    parser.add_argument("--starts", type=int, default=5, help="cold calls in a turn")
    parser.add_argument("--stand-bys", type=int, nargs="+", default=[1, 0], help="the variants")
    parser.add_argument("--poll-seconds", type=float, default=6.0)
    parser.add_argument("--set", action="append", default=[], help="a miner's setting")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds before each call")
    parser.add_argument("--runtime", choices=("process", "docker"))
    parser.add_argument("--chute", choices=tuple(_CALLS))
    parser.add_argument("--gpu", action="store_true", help="this host's GPUs, process runtime")
    parser.add_argument("--gpu-python", type=Path, help="runs the provers")
    parser.add_argument("--profile", choices=("periodic", "admission"), default="periodic")
    parser.add_argument("--folder", type=Path, help="for data and logs; default: a temporary one")
    parser.add_argument("--out", type=Path, help="JSON, rewritten after each start")
    parser.add_argument("--json", action="store_true", help="on one line")
    options = parser.parse_args()
    options.chute = options.chute or ("gpu_matmul" if options.gpu else "echo")
    runtime = "process" if options.gpu else choose(options.runtime).runtime
    if runtime == "docker":
        ensure_base_image()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="cold-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the network ends with us
    with Localnet(folder, block_seconds=0.5, tempo=40, runtime=runtime) as net:
        found = Bench(net, options).run()
    print(json.dumps(found, indent=None if options.json else 1))


if __name__ == "__main__":
    main()
