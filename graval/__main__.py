"""`python -m graval info|selftest|bench|calibrate [--json]`: what graval sees and can do here.

`selftest` compares this machine's CPU with the golden vectors, and each CUDA backend that runs
here with the CPU; it exits 1 on any mismatch and 0 where there is no GPU and the CPU is right.
`bench` answers whole challenges and compares with measured ceilings; `calibrate` turns the same
run into references for `graval.timing`.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from graval import VERSION, bench, golden
from graval.errors import BackendUnavailable, GravalError
from graval.gpus import GPUS
from graval.params import PROFILES, references
from graval.prover.backend import Choice, open_backend

SELFTEST_ROWS = 1 << 16
CUDA_BACKENDS = ("triton", "torch")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        report, status = _run(options)
    except GravalError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    text = json.dumps(report, indent=2) if options.json else _text(report)
    sys.stdout.write(text + "\n")
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=2) + "\n")
    return status


def _run(options: argparse.Namespace) -> tuple[dict[str, object], int]:
    if options.command == "info":
        return _info(options.gpu), 0
    if options.command == "selftest":
        return _selftest(options.gpu)
    report = bench.run(
        open_backend(options.backend, Choice(options.gpu, declare=options.declare)),
        options.profiles.split(","),
        options.challenges,
        sent=options.as_sent,
        repeat=options.repeat,
        note=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if options.command == "calibrate":
        return {"references": [asdict(r) for r in bench.to_references(report)]}, 0
    return asdict(report), 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m graval", description=__doc__)
    parser.add_argument("command", choices=("info", "selftest", "bench", "calibrate"))
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument("--gpu", type=int, default=0, help="index among the visible GPUs")
    parser.add_argument("--out", help="also write the report there, as JSON")
    parser.add_argument("--backend", default="auto", help="of bench and calibrate")
    parser.add_argument("--declare", help="class that a CPU stands in for (bench on a CPU)")
    parser.add_argument(
        "--profiles", default="periodic,admission,light", help="of bench, calibrate"
    )
    parser.add_argument("--challenges", type=int, default=30, help="of each profile")
    parser.add_argument("--repeat", type=int, default=1, help="answer each so often (bench)")
    parser.add_argument(
        "--as-sent", action="store_true", help="bench light as a validator sends it (graval.light)"
    )
    return parser


def _info(gpu: int) -> dict[str, object]:
    backends: dict[str, object] = {"numpy": f"ready (numpy {np.__version__}; stand-in only)"}
    for name in CUDA_BACKENDS:
        try:
            backends[name] = asdict(open_backend(name, Choice(gpu)).device_info())
        except GravalError as error:
            backends[name] = str(error)
    return {
        "version": VERSION,
        "backends": backends,
        "profiles": {p.name: asdict(p) for p in PROFILES.values()},
        "known_gpus": sorted(GPUS),
        "references": {f"{r.gpu}/{r.profile}": asdict(r) for r in references()},
        "fallback": {f"{r.gpu}/{r.profile}": asdict(r) for r in references("torch")},
    }


def _selftest(gpu: int) -> tuple[dict[str, object], int]:
    outcomes = golden.check_cpu()
    skipped = {}
    for name in CUDA_BACKENDS:
        try:
            device = open_backend(name, Choice(gpu))
        except BackendUnavailable as error:
            skipped[name] = str(error)
            continue
        outcomes += golden.check_backend(name, device, SELFTEST_ROWS)
    ok = all(outcome.ok for outcome in outcomes)
    report = {"ok": ok, "checks": [asdict(o) for o in outcomes], "skipped": skipped}
    return report, 0 if ok else 1


def _text(report: dict[str, object]) -> str:
    lines = []
    for key, value in report.items():
        if isinstance(value, dict):
            lines += [f"{key}:"] + [f"  {name}: {_short(item)}" for name, item in value.items()]
        elif isinstance(value, list):
            lines += [f"{key}:"] + [f"  {_short(item)}" for item in value]
        else:
            lines.append(f"{key}: {value}")
    return "\n".join(lines)


def _short(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    return ", ".join(f"{name} {value}" for name, value in item.items() if value not in ("", None))


if __name__ == "__main__":
    sys.exit(main())
