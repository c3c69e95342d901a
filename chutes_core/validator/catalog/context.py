"""The build context for the engine: a tar file made from a stored bundle, or from a few files.

Path: bundle (zip) -> here -> engine/build. Invariant: owners, dates and modes are fixed, so that
equal bundles hit the engine's layer cache; the Dockerfile lies under a name that no context has.
"""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

DOCKERFILE = ".chutes-build/Dockerfile"
_CONTEXT = "context/"


def tar_of_bundle(bundle: Path, target: Path) -> None:
    """Write the context of a bundle: its `context/…` at the root, and its Dockerfile.

    Args:
        bundle: a zip that `bundle.packed` has made, so its names are safe.
        target: the tar file to write.
    """
    with zipfile.ZipFile(bundle) as archive, tarfile.open(target, "w") as tar:
        _add(tar, DOCKERFILE, archive.read("Dockerfile"))
        for info in archive.infolist():
            name = info.filename.removeprefix(_CONTEXT)
            if name != info.filename and name != DOCKERFILE:
                mode = 0o755 if (info.external_attr >> 16) & 0o111 else 0o644
                with archive.open(info) as source:
                    tar.addfile(_entry(name, info.file_size, mode), source)


def tar_of_files(dockerfile: str, files: Mapping[str, bytes], target: Path) -> None:
    """Write a context of a few small files of our own."""
    with tarfile.open(target, "w") as tar:
        _add(tar, DOCKERFILE, dockerfile.encode())
        for name, data in files.items():
            _add(tar, name, data)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_entry(name, len(data), 0o644), io.BytesIO(data))


def _entry(name: str, size: int, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, mode, 0
    return info
