"""The parts of a bundle: Python, packages, graval, launcher; what nobody needs is left out.

Path: build_prover_bundle -> here. The running interpreter bundles itself: its standard library, its
program, and of its installed packages those that are asked for with all that they require.
"""

import importlib.metadata as metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent

_NOT_OF_PYTHON = shutil.ignore_patterns(
    "site-packages", "dist-packages", "__pycache__", "test", "idlelib", "tkinter", "turtledemo",
    "ensurepip", "lib2to3", "config-*", "*.a", "_tkinter*", "_test*", "_xxtestfuzz*", "_crypt*",
    "nis.*", "_dbm.*", "_gdbm.*", "_curses*", "readline.*", "sitecustomize.py",
    "EXTERNALLY-MANAGED",
)  # fmt: skip
_NOT_OF_PACKAGES = (
    "torch/include/", "torch/share/", "torch/test/", "torch/bin/protoc",
    "triton/profiler/", "triton/backends/amd/lib/", "triton/backends/amd/include/",
    "triton/FileCheck", "triton/_C/libproton",
)  # fmt: skip
AFTER_KERNELS = (
    "include",
    "packages/triton/backends/nvidia/bin",
    "packages/triton/backends/nvidia/include",
    "packages/triton/backends/nvidia/lib/cupti",
)
"""What only the compilation of kernels needs, by path in the bundle."""


def copy_python(root: Path) -> None:
    """Copy the program, the standard library and the headers (for Triton's compilations)."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = root / "lib" / version
    shutil.copytree(
        sysconfig.get_path("stdlib"), home, ignore=_NOT_OF_PYTHON, ignore_dangling_symlinks=True
    )
    dynamic = sysconfig.get_config_var("DESTSHARED")
    if dynamic and Path(dynamic).is_dir() and not (home / "lib-dynload").is_dir():
        shutil.copytree(dynamic, home / "lib-dynload", ignore=_NOT_OF_PYTHON)
    (root / "libexec").mkdir()
    program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    shutil.copyfile(program, root / "libexec" / "python3")
    (root / "libexec" / "python3").chmod(0o755)
    headers = Path(sysconfig.get_path("include"))
    if headers.is_dir():
        shutil.copytree(headers, root / "include" / version)


def copy_packages(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Copy installed packages with all that they require; return their versions by name."""
    target = root / "packages"
    versions = {}
    for package in _closure(names):
        versions[package.metadata["Name"]] = package.version
        for file in package.files or ():
            if ".." in file.parts or "__pycache__" in file.parts:
                continue  # scripts, and what another Python compiled
            if str(file).startswith(_NOT_OF_PACKAGES):
                continue
            source = Path(str(file.locate()))
            if source.is_file():
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target / file)
    return dict(sorted(versions.items()))


def copy_graval(root: Path) -> None:
    """Copy graval of this checkout."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "graval", root / "packages" / "graval", ignore=ignored)


def make_launcher(root: Path, compiler: str) -> None:
    """Compile bin/python3."""
    (root / "bin").mkdir()
    flags = ("-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector")
    command = [compiler, *flags, "-fno-builtin", "-s", "-o", str(root / "bin" / "python3")]
    subprocess.run([*command, str(HERE / "launcher.c")], check=True)


def read_only(root: Path) -> None:
    """Take every right to write, and let everybody read."""
    for folder, _, files in os.walk(root):
        for name in files:
            path = Path(folder) / name
            path.chmod(0o555 if path.stat().st_mode & 0o100 else 0o444)
        Path(folder).chmod(0o555)


def _closure(names: Iterable[str]) -> list[metadata.Distribution]:
    """Return the installed distributions of some names, and what they require."""
    found: dict[str, metadata.Distribution] = {}
    asked: set[tuple[str, str]] = set()
    queue = [Requirement(name) for name in names]
    while queue:
        requirement = queue.pop()
        name = requirement.name.lower().replace("_", "-")
        extras = [
            extra for extra in ("", *sorted(requirement.extras)) if (name, extra) not in asked
        ]
        if not extras:
            continue
        try:
            package = found.setdefault(name, metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue  # not installed here, and it works: an option
        for extra in extras:
            asked.add((name, extra))
            wanted = (Requirement(text) for text in package.requires or ())
            queue += [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": extra})]
    return list(found.values())
