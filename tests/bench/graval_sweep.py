"""Sweep the Triton backend's tile sizes on a CUDA device; JSON lines on stdout.

    python tests/bench/graval_sweep.py [--seconds 0.35] [--memory 0.5] [--out FILE]

Checks each variant's digests against the CPU first. The figures choose `graval.prover.tuning`.
"""

import argparse
import json
import re
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from graval import golden, prf
from graval.params import PROFILES
from graval.prover.backend import Choice, open_backend
from graval.prover.triton_backend import Layers, Scan, TritonBackend
from graval.prover.tuning import HOPPER, Tuning

PORTABLE = Tuning(block=(128, 128, 128), stages=3, programs=2)
WIDE = replace(PORTABLE, block=(128, 256, 128), warps=8, programs=1)
FILLS = {
    **{f"hopper j{r // 256} s{s}": replace(HOPPER, chunk_rows=r, streams=s)
       for r, s in ((256, 1), (256, 2), (512, 1), (512, 2), (1024, 1), (1024, 2), (4096, 1))},
    "hopper j2 b3": replace(HOPPER, chunk_rows=512, stages=3),
    "128x128x128 s3 p2": PORTABLE,
    "128x128x128 s3 p2 2 streams": replace(PORTABLE, streams=2),
    "128x128x128 s3 p2 j2": replace(PORTABLE, chunk_rows=256),
    "128x128x128 s2 p3": replace(PORTABLE, stages=2, programs=3),
    "128x128x64 s4 p3": replace(PORTABLE, block=(128, 128, 64), stages=4, programs=3),
    "128x128x64 s5 p2": replace(PORTABLE, block=(128, 128, 64), stages=5),
    "128x256x128 flat": replace(WIDE, flatten=True),
    "128x256x128": WIDE,
}  # fmt: skip
SCANS = {
    f"scan {m} s{s} w{w} p{p}": replace(
        HOPPER, scan_rows=m, scan_stages=s, scan_warps=w, scan_programs=p
    )
    for m, s, w, p in (
        (32, 3, 4, 3), (32, 3, 2, 3), (32, 4, 4, 2), (16, 4, 2, 6),
        (64, 3, 4, 1), (64, 4, 4, 1), (64, 3, 8, 1), (64, 4, 8, 1), (32, 3, 4, 2),
        (32, 3, 8, 3), (32, 4, 8, 2), (32, 7, 4, 1), (32, 6, 8, 1),
    )
}  # fmt: skip


def main() -> int:
    """Run the sweep; 1 when any variant computes a wrong digest."""
    options = _parser().parse_args()
    opened = open_backend("triton", Choice(0))
    info = opened.device_info()
    device = torch.device("cuda", 0)
    report: dict[str, object] = {"device": info.name, "driver": info.driver, "rows": []}
    sink = Path(options.out) if options.out else None

    def note(**figures: object) -> None:
        report["rows"].append(figures)  # type: ignore[attr-defined]
        print(json.dumps(figures), flush=True)
        if sink:
            sink.write_text(json.dumps(report, indent=1))

    held = torch.empty(
        (int(info.memory_bytes * options.memory) // 1024, 1024), dtype=torch.int8, device=device
    )
    note(name="copy", **copy_bandwidth(held))
    note(name="int_mm", **matrix_rate(device))
    key = prf.fill_key(bytes(32), 8)
    bad = 0
    chosen = re.compile(options.only)
    for name, tuning in FILLS.items():
        if not chosen.search(name):
            continue
        try:
            ok = is_right(device, info, tuning)
            bad += not ok
            layers = Layers(device, info.sm_count, tuning)
            rows = int(options.seconds * 1.1e15 / (8 * 2 * 1024 * 1024))
            part = held[: min(rows, len(held))]
            layers.fill(key, part[: 2 * layers.chunk_rows])
            seconds = min(_timed(lambda layers=layers, part=part: layers.fill(key, part))
                          for _ in range(2))  # fmt: skip
            tops = len(part) * 8 * 2 * 1024 * 1024 / seconds / 1e12
            note(name=name, ok=ok, tops=round(tops, 1), power=_power())
            layers.release()
        except Exception as error:  # noqa: BLE001 # one variant must not end the sweep
            note(name=name, error=f"{type(error).__name__}: {error}"[:300])
            traceback.print_exc()
    if chosen.search("scan"):
        Layers(device, info.sm_count, PORTABLE).fill(prf.fill_key(bytes(32), 1), held)
    for name, tuning in SCANS.items():
        if not chosen.search(name):
            continue
        try:
            scan = Scan(device, info.sm_count, tuning)
            times = []
            for _ in range(6):
                asked = prf.query(bytes(32), 24)
                wanted = np.arange(24, dtype=np.uint64)
                times.append(_timed(lambda s=scan, a=asked, w=wanted: s.find(held, a, w)))
            few = [
                _timed(lambda s=scan, a=asked, w=wanted: s.find(held[: 1 << 12], a, w))
                for _ in range(9)
            ]
            best = held.numel() / sorted(times)[2] / 1e12
            note(name=name, tb_s=round(best, 3), host_us=round(1e6 * sorted(few)[4]))
        except Exception as error:  # noqa: BLE001 # one variant must not end the sweep
            note(name=name, error=f"{type(error).__name__}: {error}"[:300])
    if chosen.search("torch"):
        backend = open_backend("torch", Choice(0))
        backend.fill(bytes(32), 2, 1 << 16)
        seconds = _timed(lambda: backend.fill(bytes(32), 8, 1 << 22))
        note(name="torch", tops=round((1 << 22) * 8 * 2 * 1024 * 1024 / seconds / 1e12, 1))
    return 1 if bad else 0


def is_right(device: "torch.device", info: object, tuning: Tuning) -> bool:
    """Whether this tuning gives the CPU's answers, with a last chunk that is not full."""
    backend = TritonBackend(device, info, tuning)  # type: ignore[arg-type]
    rows = 2 * backend._layers.chunk_rows + 77  # the bench knows its backend
    challenge = golden.golden_challenge(PROFILES["light"], rows)
    backend.fill(challenge.leg1.seed, challenge.leg1.layers, rows)
    from graval.prover.prove import run_chain

    return all(
        prf.answer_digest(
            run_chain(backend, leg.key, leg.tags), challenge.leg1.seed, leg.to_bytes()
        )
        == expected
        for leg, expected in (
            (challenge.leg1, challenge.expected1),
            (challenge.leg2, challenge.expected2),
        )
    )


def copy_bandwidth(held: "torch.Tensor") -> dict[str, float]:
    """TB/s of a device-to-device copy of half of held: bytes read and written over the median."""
    half = len(held) // 2
    times = [_timed(lambda: held[:half].copy_(held[half : 2 * half])) for _ in range(12)]
    return {"tb_s": round(2 * half * 1024 / sorted(times)[5] / 1e12, 3)}


def matrix_rate(device: "torch.device") -> dict[str, float]:
    """int8 TOPS of torch._int_mm on random data, 8192 cubed."""
    n = 8192
    a, b = (torch.randint(-128, 128, (n, n), dtype=torch.int8, device=device) for _ in (0, 1))
    torch._int_mm(a, b.t())  # torch's only int8 product
    count = 30

    def run() -> None:
        for _ in range(count):
            torch._int_mm(a, b.t())

    seconds = min(_timed(run) for _ in range(3)) / count
    return {"tops": round(2 * n**3 / seconds / 1e12, 1)}


def _timed(work: object) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()  # type: ignore[operator]
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _power() -> str:
    import subprocess

    fields = "power.draw,clocks.sm,temperature.gpu"
    return subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--memory", type=float, default=0.6)
    parser.add_argument("--only", default="", help="regular expression of variants")
    parser.add_argument("--out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
