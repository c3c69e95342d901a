"""What a run has left, fetched into a folder: `chutes jobs download` and `run --output-dir`.

Invariant: what a validator names as a file is never written outside of the folder that was asked
for, whatever it names and whatever lies there; a file appears whole under its name, or not at all.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from chutes_core.base.errors import Invalid, ProtocolError
from chutes_core.cli.options import progress
from chutes_core.sdk.answers import unreachable
from chutes_core.sdk.client import ApiClient
from chutes_core.wire.job import MAX_FILE_NAME

_PIECE_BYTES = 256 * 1024


def fetch(client: ApiClient, found: dict[str, Any], folder: Path) -> list[Path]:
    """Fetch a run's files into a folder and return where they are.

    Raises:
        ProtocolError: ``unsafe_file_name`` or ``file_differs``.
    """
    wanted = [(file, _place(folder, file["name"])) for file in found["files"]]
    with progress("fetching", sum(int(file["size_bytes"]) for file in found["files"])) as done:
        for file, place in wanted:
            _fetch_one(client, f"/jobs/{quote(found['job_id'])}/files/", file, place, done)
    return [place for _, place in wanted]


def _place(folder: Path, name: str) -> Path:
    path = PurePosixPath(name)
    plain = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    if not plain or not name.isprintable() or "\\" in name or len(name.encode()) > MAX_FILE_NAME:
        raise ProtocolError(
            "unsafe_file_name",
            f"the validator names a file {name[:80]!r}",
            hint="it would lie outside of the folder; do not trust this validator",
        )
    place = folder / path
    if not place.resolve().is_relative_to(folder.resolve()):
        raise Invalid(
            "outside_folder", f"{place} is a link out of {folder}", hint="name an empty folder"
        )
    return place


def _fetch_one(
    client: ApiClient, base: str, file: dict[str, Any], place: Path, done: Callable[[int], None]
) -> None:
    draft = place.with_name(f"{hashlib.sha256(place.name.encode()).hexdigest()[:16]}.part")
    digest = hashlib.sha256()
    answer = client.open_stream("GET", base + quote(file["name"]), purpose="jobs")
    try:
        with _new(draft) as out:
            for piece in answer.iter_bytes(_PIECE_BYTES):
                digest.update(piece)
                out.write(piece)
                done(len(piece))
    except httpx.TransportError as error:
        raise unreachable(client.base_url, error) from error
    except OSError as error:
        raise _not_written(draft, error) from error
    finally:
        answer.close()
    if digest.hexdigest() != file["sha256"]:
        draft.unlink()
        raise ProtocolError(
            "file_differs", f"{file['name']} is not what was announced", hint="fetch it again"
        )
    try:
        draft.replace(place)
    except OSError as error:  # its name is a folder's, or too long
        draft.unlink()
        raise _not_written(place, error) from error


def _new(draft: Path) -> BinaryIO:
    """Open a file that nobody has made before: what lies there, a link too, goes first."""
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        return draft.open("xb")
    except OSError as error:
        raise _not_written(draft, error) from error


def _not_written(path: Path, error: OSError) -> Invalid:
    return Invalid(
        "not_written", f"{path} cannot be written: {error.strerror}", hint="name an empty folder"
    )
