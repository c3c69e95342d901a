"""The runner as a wheel, made from this installation: what the last layer of every image installs.

Path: docker_builder -> `runner_wheel` -> the build context. It needs no build tool and no network:
a pure wheel is a zip with a RECORD (PyPA's binary distribution format 1.0). Invariant: equal
sources give equal bytes (fixed dates, sorted names), so the engine's layer cache holds; the version
carries a hash of the sources, so that pip replaces an older runner in an image that has one; only
the rooms that run inside a container are in it.
"""

import base64
import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import chutes_core
import graval
from chutes_core.base.version import VERSION

PACKAGE = "chutes-core"
ROOMS = ("base", "runner", "sdk", "wire")
NEEDS = (
    "bittensor-core>=0.1.5",
    "click>=8.3",
    "cryptography>=46",
    "fastapi>=0.162",
    "httpx>=0.28",
    "numpy>=1.24",
    "pydantic>=2.14",
    "rich>=15",
)
"""What the layer installs: setup.py's install_requires, and numpy, with which the prover of a
stand-in GPU computes. fastapi 0.162.5 is the last that takes Python 3.10, which an image may have.
The same list is images/cpu/requirements.txt."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Wheel:
    """A wheel file."""

    name: str
    data: bytes


def runner_wheel() -> Wheel:
    """Return the wheel of this installation's runner, SDK and prover."""
    files = _sources()
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    version = f"{VERSION}+runner.{digest.hexdigest()[:12]}"
    stem = f"{PACKAGE.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    files[f"{info}/METADATA"] = _metadata(version)
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: chutes\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return Wheel(f"{stem}-py3-none-any.whl", out.getvalue())


def _sources() -> dict[str, bytes]:
    package = Path(chutes_core.__file__).parent
    paths = [package / "__init__.py", package / "py.typed"]
    for room in ROOMS:
        paths += (package / room).rglob("*.py")
    prover = Path(graval.__file__).parent
    paths += [*prover.rglob("*.py"), prover / "py.typed"]
    return {
        f"{root.name}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for root in (package, prover)
        for path in paths
        if path.is_relative_to(root)
    }


def _metadata(version: str) -> bytes:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {PACKAGE}",
        f"Version: {version}",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {one}" for one in NEEDS),
    ]
    return ("\n".join(lines) + "\n").encode()


def _record(files: dict[str, bytes], own_name: str) -> bytes:
    lines = [f"{name},sha256={_hash(data)},{len(data)}" for name, data in sorted(files.items())]
    return ("\n".join([*lines, f"{own_name},,"]) + "\n").encode()


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
