"""The bundle of an image: a zip with `Dockerfile` and `context/…`, made from what was uploaded.

Invariant: nothing of an upload is believed. Names that leave the directory, links, special files,
encryption, bombs and headers that lie about sizes are refused before or while a byte is copied; the
bundle is written anew, with fixed dates, so that equal input gives an equal SHA-256.
"""

import io
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from chutes_core.base.errors import Invalid, TooLarge

MAX_CONTEXT_BYTES = 64 * 1024 * 1024
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
MAX_FILES = 10_000
MAX_RATIO = 200
MAX_NAME_BYTES = 500
_SMALL_BYTES = 1024 * 1024  # a file this small is no bomb, whatever its ratio
MAX_BUNDLE_BYTES = MAX_UNPACKED_BYTES + 16 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError)
"""What zipfile raises for damaged archives (UnicodeDecodeError is a ValueError)."""


@contextmanager
def packed(dockerfile: str, context: bytes) -> Iterator[Iterator[bytes]]:
    """Check the upload and give the bundle's bytes, chunk by chunk, inside the block.

    Args:
        dockerfile: a text that `dockerfile.check_dockerfile` accepted.
        context: a zip file, or nothing.

    Raises:
        TooLarge: ``context_too_large``.
        Invalid: ``bad_zip`` or ``unsafe_zip`` with the name of the entry.
    """
    if len(context) > MAX_CONTEXT_BYTES:
        raise TooLarge("context_too_large", f"the zipped context is over {MAX_CONTEXT_BYTES} bytes")
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr(_entry("Dockerfile", 0o644), dockerfile.encode())
            if context:
                _copy_context(context, bundle)
        file.seek(0)
        yield iter(lambda: file.read(_CHUNK_BYTES), b"")


def _copy_context(context: bytes, bundle: zipfile.ZipFile) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(context)) as archive:
            _check_entries(archive.infolist())
            left = MAX_UNPACKED_BYTES
            for info in sorted(archive.infolist(), key=lambda entry: entry.filename):
                if not info.is_dir():
                    left -= _copy_file(archive, info, bundle, left)
    except _UNREADABLE as error:
        raise Invalid("bad_zip", "the build context is no readable zip file") from error


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_FILES:
        raise Invalid("unsafe_zip", f"the build context has more than {MAX_FILES} files")
    if sum(info.file_size for info in entries) > MAX_UNPACKED_BYTES:
        raise TooLarge("context_too_large", f"unpacks to over {MAX_UNPACKED_BYTES} bytes")
    seen: set[str] = set()
    for info in entries:
        problem = _problem(info)
        name = info.filename.rstrip("/")
        if problem is None and name in seen:
            problem = "occurs twice"
        if problem is not None:
            raise Invalid("unsafe_zip", f"in the build context, {name[:100]!r} {problem}")
        seen.add(name)


def _problem(info: zipfile.ZipInfo) -> str | None:
    name = info.filename
    parts = name.rstrip("/").split("/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        return "is too long a name"
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in parts[0]:
        return "leaves the directory"
    if not name.isprintable():
        return "has characters that cannot be shown"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in an unusual way"
    if info.file_size > max(_SMALL_BYTES, info.compress_size * MAX_RATIO):
        return "unpacks to suspiciously much"
    return None


def _copy_file(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, bundle: zipfile.ZipFile, left: int
) -> int:
    executable = (info.external_attr >> 16) & 0o111
    target = _entry(f"context/{info.filename}", 0o755 if executable else 0o644)
    copied = 0
    with archive.open(info) as source, bundle.open(target, "w", force_zip64=True) as sink:
        while chunk := source.read(_CHUNK_BYTES):
            copied += len(chunk)
            if copied > min(left, info.file_size):
                raise Invalid("unsafe_zip", "a file of the build context is longer than it says")
            sink.write(chunk)
    return copied


def _entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (stat.S_IFREG | mode) << 16
    info.create_system = 3  # Unix, so that the mode counts
    return info
