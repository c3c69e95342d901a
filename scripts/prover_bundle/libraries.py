"""The shared libraries of a bundle: everything that its programs need, but for the driver's.

Path: build_prover_bundle -> here, after all files were copied. Invariant: after `gather` every
name that an ELF file of the bundle needs is a file of the bundle, the driver's own, or in the list
that is returned.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scripts.prover_bundle.elf import needed

LOADER = "ld-linux-x86-64.so.2"
_ALWAYS = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1")
"""Of the bundle's libc, whether or not a file asks for them: the driver's libraries do."""
_DRIVER = re.compile(r"lib(cuda|cudadebugger|nvidia-[\w-]+|nvcuvid|nvidia_ml)\.so")
_SYSTEM = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib")


class Search:
    """Where this machine has its libraries.

    Args:
        extra: folders that are looked into first.
    """

    def __init__(self, extra: Sequence[Path] = ()) -> None:
        named = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        self._folders = [*extra, *(Path(text) for text in named if text)]
        self._cached = _loader_cache()
        self._system = [Path(text) for text in _SYSTEM]

    def find(self, name: str) -> Path | None:
        """Return the file of a library's name, or None."""
        places = [folder / name for folder in self._folders]
        places += [self._cached[name]] if name in self._cached else []
        places += [folder / name for folder in self._system]
        return next((place.resolve() for place in places if place.exists()), None)


def gather(root: Path, search: Search) -> list[str]:
    """Copy into lib/ what is missing; return "FILE needs NAME" for what could not be found."""
    lib = root / "lib"
    there = {path.name for path in root.rglob("*.so*")}
    missing = []
    queue = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    for name in (LOADER, *_ALWAYS):
        _take(name, lib, search, there, queue)
    while queue:
        path = queue.pop()
        for name in needed(path) or ():
            if name in there or _DRIVER.match(name):
                continue
            if not _take(name, lib, search, there, queue):
                missing.append(f"{path.relative_to(root)} needs {name}")
    return sorted(missing)


def _take(name: str, lib: Path, search: Search, there: set[str], queue: list[Path]) -> bool:
    found = search.find(name)
    if found is None:
        return False
    shutil.copyfile(found, lib / name)
    (lib / name).chmod(0o755)
    there.add(name)
    queue.append(lib / name)
    return True


def _loader_cache() -> dict[str, Path]:
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin:/bin:/usr/bin")
    if ldconfig is None:
        return {}
    listed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False).stdout
    found: dict[str, Path] = {}
    for line in listed.splitlines():
        match = re.match(r"\s+(\S+) \(.*x86-64.*\) => (\S+)", line)
        if match:
            found.setdefault(match[1], Path(match[2]))
    return found
