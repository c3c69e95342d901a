"""Builds the prover bundle: a read-only folder with a Python that runs graval's prover anywhere.

    python3 scripts/build_prover_bundle.py --out FOLDER [--backend cuda|numpy] [--compiler cc]

Run it with the Python to be bundled: for ``cuda`` one that has the pinned torch and Triton (see
`prover_bundle.pins`), on a machine with a GPU of each architecture that the bundle is for, because
every kernel is compiled here and none later. The bundle holds the loader and every library but the
driver's own, so the container that it is mounted into needs no torch, no compiler, no libc:

    bin/python3      starts it (launcher.c); nothing of the surrounding environment counts
    lib, libexec     the loader, the libraries, Python
    packages         graval, numpy; torch, Triton and what they require
    kernels          Triton's cache, filled
    manifest.json    versions, least driver, GPUs, a digest of all files

A miner names the folder in CHUTES_MINER_GRAVAL_HOME. ``numpy`` makes a bundle for stand-ins.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.prover_bundle import libraries, parts, pins

PACKAGES = {"cuda": ("torch", "triton", "numpy"), "numpy": ("numpy",)}
_TRY_S = 300


def main() -> int:
    """Build; the exit status."""
    options = _options()
    began = time.monotonic()
    if options.out.exists():
        print(f"{options.out} exists already", file=sys.stderr)
        return 1
    try:
        manifest = build(options.out, options.backend, options.compiler)
    except (OSError, subprocess.SubprocessError, LookupError, ValueError) as error:
        print(f"not built: {error}", file=sys.stderr)
        return 1
    print(json.dumps(manifest | {"build_s": round(time.monotonic() - began, 1)}, indent=2))
    return 0


def build(root: Path, backend: str, compiler: str) -> dict[str, Any]:
    """Build a bundle in a new folder; return its manifest.

    Raises:
        ValueError: torch or Triton is not the pinned one.
        LookupError: a library is missing.
        subprocess.SubprocessError: a compilation or the bundle's selftest failed.
    """
    root = root.resolve()
    root.mkdir(parents=True)
    cuda = _check_pins() if backend == "cuda" else ""
    (root / "kernels").mkdir()
    parts.copy_python(root)
    versions = parts.copy_packages(root, PACKAGES[backend])
    parts.copy_graval(root)
    parts.make_launcher(root, compiler)
    missing = libraries.gather(root, libraries.Search(_library_folders()))
    if missing:
        _drop_optional(root, missing)
    gpus = _compile_kernels(root, compiler) if backend == "cuda" else []
    for name in parts.AFTER_KERNELS:
        shutil.rmtree(root / name, ignore_errors=True)
    manifest = {
        "format": 1,
        "backend": backend,
        "python": platform.python_version(),
        "libc": platform.libc_ver()[1],
        "cuda": cuda,
        "least_driver": pins.least_driver(cuda) if cuda else "",
        "gpus": gpus,
        "kernels": sum(1 for _ in (root / "kernels").rglob("*.cubin")),
        "packages": versions,
        **_digest(root),
    }
    (root / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    parts.read_only(root)
    _run(root, "-m", "graval", "selftest")
    return manifest


def _check_pins() -> str:
    import torch
    import triton

    found = (torch.__version__, triton.__version__)
    if found != (pins.TORCH, pins.TRITON):
        raise ValueError(f"torch and Triton are {found}, pinned are {(pins.TORCH, pins.TRITON)}")
    return str(torch.version.cuda)


def _library_folders() -> list[Path]:
    """Where Python and the CUDA packages keep libraries."""
    packages = [
        Path(text) for text in sys.path if text.endswith(("site-packages", "dist-packages"))
    ]
    folders = [folder for base in packages for folder in sorted(base.glob("nvidia/**/lib"))]
    return [*folders, Path(sys.base_prefix) / "lib"]


def _drop_optional(root: Path, missing: list[str]) -> None:
    """Remove extension modules of Python that cannot load.

    Raises:
        LookupError: something else lacks a library.
    """
    fatal = []
    for line in missing:
        path = root / line.split(" needs ")[0]
        if path.parent.name == "lib-dynload":
            path.unlink(missing_ok=True)
        elif "/packages/nvidia/" not in str(path):  # parts of CUDA that torch does not load
            fatal.append(line)
    if fatal:
        raise LookupError("; ".join(fatal))


def _compile_kernels(root: Path, compiler: str) -> list[str]:
    """Fill the kernel cache on this machine's GPU; return the devices that it is for."""
    tools = root / "tools"  # the compiler's own; nothing else may change what Triton keys by
    tools.mkdir()
    for name in ("as", "ld"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    full = shutil.which(compiler) or compiler
    building = {"GRAVAL_BUNDLE_BUILD": "1", "PATH": str(tools), "CC": full}
    try:
        _run(root, "-m", "graval", "selftest", building=building)
        _run(root, "-m", "graval", "bench", "--backend", "triton", "--profiles", "light",
             "--challenges", "1", building=building)  # fmt: skip
        info = json.loads(_run(root, "-m", "graval", "info", "--json", building=building))
    finally:
        shutil.rmtree(tools)
    device = info["backends"]["triton"]
    if not isinstance(device, dict):
        raise LookupError(f"no GPU to compile for: {device}")
    return [f"sm_{device['compute_capability'].replace('.', '')}: {device['name']}"]


def _run(root: Path, *arguments: str, building: dict[str, str] | None = None) -> str:
    """Run the bundle's Python in an empty environment; what it printed."""
    inherited = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    done = subprocess.run(
        [str(root / "bin" / "python3"), *arguments],
        env={**inherited, **(building or {})},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=_TRY_S,
        check=False,
    )
    if done.returncode:
        raise subprocess.SubprocessError(
            f"{' '.join(arguments)} ended with {done.returncode}: "
            f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done.stdout


def _digest(root: Path) -> dict[str, Any]:
    """Size, number and one BLAKE2b-256 of all files, by path."""
    whole, size, count = hashlib.blake2b(digest_size=32), 0, 0
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        of_file = hashlib.blake2b()
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                of_file.update(chunk)
        whole.update(f"{path.relative_to(root)}\0{of_file.hexdigest()}\n".encode())
        size, count = size + path.stat().st_size, count + 1
    return {"files": count, "bytes": size, "digest": whole.hexdigest()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist")
    parser.add_argument("--backend", choices=tuple(PACKAGES), default="cuda")
    parser.add_argument("--compiler", default="cc", help="C compiler, for this build only")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
