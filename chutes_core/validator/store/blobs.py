"""Large bytes (image bundles) as files named by their SHA-256, beside the SQLite file.

Invariant: a file under its final name is complete and has the hash that it is called by: it is
written under a temporary name, synced, and moved.
"""

import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chutes_core.base.errors import NotFound, TooLarge, Unavailable

_DIGEST_LENGTH = 64


@dataclass(frozen=True)
class Blob:
    """A stored file: SHA-256 in hex, and its size."""

    sha256: str
    size_bytes: int


class Blobs:
    """A directory of content-addressed files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob("*.part"):  # from a process that died while writing
            left.unlink(missing_ok=True)

    @property
    def directory(self) -> Path:
        """The folder that the files lie in."""
        return self._directory

    def put(self, chunks: Iterable[bytes], *, limit_bytes: int) -> Blob:
        """Write a stream and return what it is called.

        Raises:
            TooLarge: ``blob_too_large`` as soon as the limit is passed; nothing is kept.
            Unavailable: ``store_unavailable`` where the disk is full.
        """
        temporary = self._directory / f"{secrets.token_hex(8)}.part"
        try:
            blob = _write(temporary, chunks, limit_bytes)
            os.replace(temporary, self._directory / blob.sha256)
            _sync_directory(self._directory)
        except OSError as error:
            raise Unavailable("store_unavailable", f"a blob cannot be written: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)
        return blob

    def path(self, sha256: str) -> Path:
        """Return where a blob lies.

        Raises:
            NotFound: ``no_such_blob``.
        """
        if not _is_digest(sha256) or not (self._directory / sha256).is_file():
            raise NotFound("no_such_blob", "there is no such blob")
        return self._directory / sha256

    def all(self) -> tuple[str, ...]:
        """Return the SHA-256 of every blob."""
        return tuple(
            sorted(path.name for path in self._directory.iterdir() if _is_digest(path.name))
        )

    def delete(self, sha256: str) -> None:
        """Remove a blob; nothing happens where there is none."""
        if _is_digest(sha256):
            (self._directory / sha256).unlink(missing_ok=True)


def _write(path: Path, chunks: Iterable[bytes], limit_bytes: int) -> Blob:
    digest = hashlib.sha256()
    size = 0
    with path.open("xb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > limit_bytes:
                raise TooLarge("blob_too_large", f"more than {limit_bytes} bytes")
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return Blob(digest.hexdigest(), size)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_digest(text: str) -> bool:
    return len(text) == _DIGEST_LENGTH and all(c in "0123456789abcdef" for c in text)
