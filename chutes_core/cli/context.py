"""The build context: the files that an image's ``add`` names, as a zip.

Invariant: equal files give an equal zip (sorted names, fixed dates); links are followed only
inside the folder; what looks like a secret, a cache or a virtual environment is left out of
--include-cwd, and so is what .dockerignore names.
"""

import fnmatch
import glob
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from chutes_core.base.errors import Invalid, NotFound, TooLarge
from chutes_core.sdk.image import Added, Image

MAX_ZIP_BYTES = 64 * 1024 * 1024  # what a validator accepts
MAX_FILES = 10_000
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LEFT_OUT = (
    "*.pyc",
    ".env",
    ".env.*",
    ".git",
    ".hg",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".venv",
    "__pycache__",
    "node_modules",
    "venv",
)


def collect(image: Image, folder: Path, *, include_cwd: bool) -> dict[str, Path]:
    """Return the files of the context: name in the context -> file.

    Raises:
        NotFound: ``no_such_source``. Invalid: ``source_outside_context``, ``too_many_files``.
    """
    root = folder.resolve()
    files: dict[str, Path] = {}
    for added in image.added:
        for source in _sources(added, folder):
            found = _files(source, folder, root, ignored=("__pycache__", "*.pyc"))
            files |= {name: path for name, path in found.items() if not _excluded(name, added)}
    if include_cwd:
        files |= _files(folder, folder, root, ignored=(*_LEFT_OUT, *_dockerignore(folder)))
    if len(files) > MAX_FILES:
        raise Invalid(
            "too_many_files",
            f"the build context has more than {MAX_FILES} files",
            hint="name less in Image.add, or leave files out by .dockerignore",
        )
    return files


def pack(files: dict[str, Path]) -> bytes:
    """Return the zip of the files.

    Raises:
        TooLarge: ``context_too_large``.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, so that the mode counts
            mode = 0o755 if os.access(path, os.X_OK) else 0o644
            entry.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(entry, path.read_bytes())
            if buffer.tell() > MAX_ZIP_BYTES:
                raise TooLarge(
                    "context_too_large",
                    f"the zipped build context is over {MAX_ZIP_BYTES >> 20} MB at {name}",
                    hint="name less in Image.add, or leave files out by .dockerignore",
                )
    return buffer.getvalue()


def _sources(added: Added, folder: Path) -> list[Path]:
    """Return what one ``add`` names: a path, or all that its pattern matches.

    Raises:
        NotFound: ``no_such_source``.
    """
    plain = folder / added.source
    matching = glob.glob(added.source, root_dir=folder, recursive=True)
    found = [plain] if plain.exists() else [folder / name for name in sorted(matching)]
    if not found:
        raise NotFound(
            "no_such_source",
            f"the image adds {added.source!r}, which is not in {folder}",
            hint="run the command in the folder that holds it",
        )
    return found


def _excluded(name: str, added: Added) -> bool:
    """Return whether a pattern of ``exclude`` names a path or a folder that it is in."""
    place = PurePosixPath(name)
    paths = [place, *place.parents]
    return any(path.match(pattern.rstrip("/")) for pattern in added.exclude for path in paths)


def _files(source: Path, folder: Path, root: Path, *, ignored: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for path in _walk(source, folder, ignored):
        real = path.resolve()
        if not real.is_relative_to(root):
            raise Invalid("source_outside_context", f"{path} is a link that leaves {folder}")
        if real.is_file():
            found[path.relative_to(folder).as_posix()] = real
    return found


def _walk(source: Path, folder: Path, ignored: tuple[str, ...]) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for parent, directories, names in os.walk(source):
        here = Path(parent)
        directories[:] = sorted(d for d in directories if not _matches(here / d, folder, ignored))
        yield from (here / n for n in sorted(names) if not _matches(here / n, folder, ignored))


def _matches(path: Path, folder: Path, patterns: tuple[str, ...]) -> bool:
    relative = path.relative_to(folder).as_posix()
    return any(
        fnmatch.fnmatch(path.name, pattern) or fnmatch.fnmatch(relative, pattern)
        for pattern in patterns
    )


def _dockerignore(folder: Path) -> tuple[str, ...]:
    path = folder / ".dockerignore"
    if not path.is_file():
        return ()
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line.strip("/") for line in lines if line and line[0] not in "#!")
