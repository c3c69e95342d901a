"""What a challenge costs the verifier's CPU, beside a SGEMM of the same size; JSON on stdout.

    python tests/bench/graval_verifier.py [--rounds 20] [--threads 2] [--out FILE]

The aim: at most 50 ms a GPU at T = 8 with 272 rows on two idle cores. A challenge has 16 real rows
in leg 1 and 12 to 20 in each of 16 stages, 272 in the mean; its cost is that of T products of
(rows, 1024) by (1024, 1024). Challenge and bare product are timed by turns, so that what disturbs
one disturbs the other, and the ratio holds on a machine that is not quiet, whose load is reported.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

THREADS = int(sys.argv[sys.argv.index("--threads") + 1]) if "--threads" in sys.argv else 2
os.environ.setdefault("OPENBLAS_NUM_THREADS", str(THREADS))  # before numpy is loaded

import numpy as np  # noqa: E402

from graval import bench, prf  # noqa: E402
from graval.gpus import GPUS  # noqa: E402
from graval.params import PROFILES  # noqa: E402
from graval.prover.backend import Choice, open_backend  # noqa: E402
from graval.verifier import build_challenge  # noqa: E402

MEAN_ROWS = 272


def main() -> int:
    """Measure; 0."""
    options = _options()
    device = open_backend("numpy", Choice(0, declare="h100_sxm")).device_info()
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": THREADS,
        "versions": bench.versions(),
        "load_before": os.getloadavg(),
        "profiles": [_profile(name, device, options.rounds) for name in ("periodic", "admission")],
        "load_after": os.getloadavg(),
    }
    text = json.dumps(report, indent=2)
    if options.out:
        Path(options.out).write_text(text + "\n")
    print(text)
    return 0


def _profile(name: str, device: object, rounds: int) -> dict[str, object]:
    profile = PROFILES[name]
    rows = profile.rows(GPUS["h100_sxm"].memory_bytes)
    secrets = _secrets_of_mean_size(device, profile, rows, rounds)
    matrix = np.random.default_rng(1).integers(-128, 128, (prf.N, prf.N)).astype(np.float32)
    x = np.random.default_rng(2).integers(-128, 128, (MEAN_ROWS, prf.N)).astype(np.float32)
    built, bare, ratios = [], [], []
    for context, secret in secrets:
        start = time.perf_counter_ns()
        build_challenge(context, profile, secret=secret)
        between = time.perf_counter_ns()
        for _ in range(profile.layers):
            x @ matrix
        end = time.perf_counter_ns()
        built.append((between - start) / 1e6)
        bare.append((end - between) / 1e6)
        ratios.append(built[-1] / bare[-1])
    return {
        "profile": name,
        "layers": profile.layers,
        "rows": MEAN_ROWS,
        "challenges": rounds,
        "build_ms": {"least": round(min(built), 1), "p50": round(statistics.median(built), 1)},
        "sgemm_ms": {"least": round(min(bare), 1), "p50": round(statistics.median(bare), 1)},
        "ratio": {"of_least": round(min(built) / min(bare), 2),
                  "p50": round(statistics.median(ratios), 2)},
    }  # fmt: skip


def _secrets_of_mean_size(device, profile, rows, count):
    """Contexts and secrets whose challenges have 272 real rows, give or take four."""
    found = []
    while len(found) <= count:
        context, secret = bench.context_of(device, profile, rows), os.urandom(32)
        one = real_rows(context, profile, secret)
        if abs(one - MEAN_ROWS) <= 4:
            found.append((context, secret))
    return found[1:]


def real_rows(context, profile, secret):
    """How many rows a challenge's needles are."""
    from graval.challenge import derive_seed
    from graval.verifier.build import _plans
    from graval.verifier.draw import Draw

    one, many = _plans(Draw(secret, derive_seed(context, profile.layers)), context.rows, profile)
    return len({needle for plan in (*one, *many) for needle in plan.needles})


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
