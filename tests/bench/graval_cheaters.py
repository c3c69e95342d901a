"""How long a cheater needs who lacks some rows, on a real device; JSON on stdout.

    python tests/bench/graval_cheaters.py [--missing 0,5,7,10] [--challenges 3] [--out FILE]

`recompute` computes the missing rows anew in each stage; `stream` keeps them in pinned host memory
and copies them in, piece by piece, under the scan of the piece before. Both answer rightly: what
gives them away is the time against D1 and D2. `stream` leaves recomputing out of leg 1's time.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from graval import bench, prf
from graval.challenge import DeviceInfo
from graval.params import PROFILES, deadlines, reference
from graval.prover.backend import Choice, Found, open_backend
from graval.prover.prove import Prover
from graval.prover.triton_backend import Layers, TritonBackend
from graval.prover.tuning import for_capability

PIECE_ROWS = 132 * 256 * 4
MODEL = {0: 1.0, 5: 0.61, 6: 0.21, 7: 0.049, 8: 0.007, 10: 0.00002}  # percent missing, T = 8


class Recomputing(TritonBackend):
    """Holds fewer rows than it was asked for and computes the rest anew for every scan."""

    missing_percent = 0

    def __init__(self, device: "torch.device", info: DeviceInfo) -> None:
        super().__init__(device, info, for_capability(9))
        self._again = Layers(device, info.sm_count, for_capability(9))
        self._piece = torch.empty((PIECE_ROWS, prf.N), dtype=torch.int8, device=device)

    def fill(self, seed: bytes, layers: int, rows: int) -> None:
        self._key = prf.fill_key(seed, layers)
        self._rows = rows
        self._kept = rows - rows * self.missing_percent // 100
        super().fill(seed, layers, self._kept)

    def find(self, asked: prf.Query, wanted: prf.U64) -> Found:
        parts = [super().find(asked, wanted)]
        for at in range(self._kept, self._rows, PIECE_ROWS):
            piece = self._piece[: min(PIECE_ROWS, self._rows - at)]
            self._again.fill(self._key, piece, first=at)
            found = self._scan.find(piece, asked, wanted)
            parts.append(Found(tuple(at + i for i in found.indices), found.rows))
        return _join(parts)


class Streaming(Recomputing):
    """Keeps the missing rows in pinned host memory and copies them in for every scan."""

    def fill(self, seed: bytes, layers: int, rows: int) -> None:
        super().fill(seed, layers, rows)
        lacking = self._rows - self._kept
        if lacking and len(getattr(self, "_host", ())) != lacking:
            self._host = torch.empty((lacking, prf.N), dtype=torch.int8, pin_memory=True)
            self._two = [torch.empty_like(self._piece) for _ in (0, 1)]
            self._copies = torch.cuda.Stream()
        for at in range(0, lacking, PIECE_ROWS):
            piece = self._piece[: min(PIECE_ROWS, lacking - at)]
            self._again.fill(self._key, piece, first=self._kept + at)
            self._host[at : at + len(piece)].copy_(piece)

    def find(self, asked: prf.Query, wanted: prf.U64) -> Found:
        lacking = self._rows - self._kept
        starts = list(range(0, lacking, PIECE_ROWS))
        for number in (0, 1):
            if number < len(starts):
                self._bring(number, starts[number])
        parts = [TritonBackend.find(self, asked, wanted)]
        for number, at in enumerate(starts):
            self._copies.synchronize()
            piece = self._two[number % 2][: min(PIECE_ROWS, lacking - at)]
            found = self._scan.find(piece, asked, wanted)
            first = self._kept + at
            parts.append(Found(tuple(first + i for i in found.indices), found.rows))
            if number + 2 < len(starts):
                self._bring(number + 2, starts[number + 2])
        return _join(parts)

    def _bring(self, number: int, at: int) -> None:
        source = self._host[at : at + PIECE_ROWS]
        with torch.cuda.stream(self._copies):
            self._two[number % 2][: len(source)].copy_(source, non_blocking=True)


def main() -> int:
    """Measure each cheater; 0 when every answer was right."""
    options = _parser().parse_args()
    opened = open_backend("triton", Choice(0))
    info = opened.device_info()
    figures = []
    for kind in (Recomputing, Streaming):
        if kind.__name__.lower() not in options.kinds:
            continue
        for missing in (int(text) for text in options.missing.split(",")):
            cheater = kind(torch.device("cuda", 0), info)
            cheater.missing_percent = missing
            figures.append({"kind": kind.__name__.lower(), "missing_percent": missing,
                            "pass_model": MODEL.get(missing)}
                           | _measure(cheater, info, options.challenges))  # fmt: skip
            print(json.dumps(figures[-1]), flush=True)
            cheater.release()
            del cheater
            torch.cuda.empty_cache()
    if options.out:
        text = json.dumps({"device": asdict(info), "cheaters": figures}, indent=2)
        Path(options.out).write_text(text + "\n")
    return 0 if all(f["right"] for f in figures) else 1


def _measure(cheater: Recomputing, info: DeviceInfo, count: int) -> dict[str, object]:
    profile = PROFILES["periodic"]
    rows = profile.rows(info.memory_bytes) * 98 // 100  # the pieces and buffers need some room
    prover = Prover(cheater)
    cheater.warm_up = lambda: None  # type: ignore[method-assign] # it would take all the memory
    prover.warm_up()
    due = deadlines(profile, reference(info.short_name, profile.name), 0)
    full = profile.rows(info.memory_bytes)
    legs1, legs2, right, passed = [], [], True, 0
    for number in range(count + 1):
        challenge = bench.challenge_of(info, profile, rows)
        start = time.perf_counter_ns()
        one = prover.answer_leg1(challenge.leg1).digest
        between = time.perf_counter_ns()
        two = prover.answer_leg2(challenge.leg2).digest
        end = time.perf_counter_ns()
        right &= (one, two) == (challenge.expected1, challenge.expected2)
        if number:
            legs1.append((between - start) // 1000)
            legs2.append((end - between) // 1000)
            passed += (
                legs1[-1] * full <= due.leg1_us * rows and legs2[-1] * full <= due.leg2_us * rows
            )
    return {
        "right": right,
        "pass_rate": round(passed / count, 3),
        "challenges": count,
        "leg1_us": bench.quantiles(legs1).p50_us,
        "leg2_us": bench.quantiles(legs2).p50_us,
    }


def _join(parts: list[Found]) -> Found:
    import numpy as np

    rows = np.concatenate([part.rows for part in parts])
    return Found(tuple(i for part in parts for i in part.indices), rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", default="0,5,7,10")
    parser.add_argument("--kinds", default="recomputing,streaming")
    parser.add_argument("--challenges", type=int, default=3)
    parser.add_argument("--out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
