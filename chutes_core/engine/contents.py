"""What an image's archive holds, read before the engine is given it.

Path: `archive.load` -> `check_contents` -> the engine. An archive may name images (RepoTags, the
old ``repositories`` file, annotations of an OCI index), and an engine that loads it points those
names at what the archive brings: whoever made it could take over any name on this host. So it has
to hold exactly one image, the granted one, and no name. Invariant: what passes has one manifest
that every reader of tar files finds, without links that lead elsewhere.

Formats: Docker image specification v1.2 (manifest.json), OCI image layout 1.0 (index.json).
"""

import hashlib
import json
import posixpath
import tarfile
from pathlib import Path
from typing import Any

from chutes_core.base.errors import ProtocolError

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MAX_MEMBERS = 10_000
_MANIFEST, _REPOSITORIES, _INDEX = "manifest.json", "repositories", "index.json"
_NAMING = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


def check_contents(archive: Path, image_digest: str) -> None:
    """Check that an archive holds this image, no other, and gives no name to it.

    Raises:
        ProtocolError: ``bad_archive`` (no plain tar of an image), ``archive_names`` (it would
            name images on this engine), ``image_mismatch`` (it holds another image, or several).
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            members = _members(tar)
            _refuse_names(tar, members)
            _check_image(tar, members, image_digest)
    except (tarfile.TarError, ValueError, TypeError, EOFError, RecursionError) as error:
        raise _bad(f"it cannot be read as one: {str(error)[:200]}") from error


def _members(tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Return the members by their plain paths."""
    found: dict[str, tarfile.TarInfo] = {}
    links: set[str] = set()
    for count, member in enumerate(tar):
        name = posixpath.normpath(member.name).lstrip("/")
        if count >= MAX_MEMBERS or name == ".." or name.startswith("../"):
            raise _bad("it has too many files, or one outside of itself")
        if name in found and not (found[name].isdir() and member.isdir()):
            raise _bad(f"{name[:100]} is in it twice")
        if not (member.isfile() or member.isdir() or member.issym()) or (
            member.issym() and posixpath.basename(name) != "layer.tar"
        ):  # engines before 25 write a layer that comes again as a symbolic link
            raise _bad(f"{name[:100]} is neither a file nor a folder")
        if member.issym():
            links.add(name)
        found[name] = member
    for name in found:
        parts = name.split("/")
        if links and any("/".join(parts[:end]) in links for end in range(1, len(parts))):
            raise _bad(f"{name[:100]} leads through a link")
    return found


def _refuse_names(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> None:
    names: list[object] = []
    for entry in _manifest(tar, members):
        names += entry.get("RepoTags") or ()
    if _REPOSITORIES in members:
        names += _document(tar, members, _REPOSITORIES) or ()
    if _INDEX in members:
        index = _document(tar, members, _INDEX)
        for entry in _objects(index.get("manifests") if isinstance(index, dict) else None):
            noted = entry.get("annotations") or {}
            names += [noted[key] for key in _NAMING if key in noted]
    if names:
        raise ProtocolError(
            "archive_names",
            f"the archive would give names on this engine: {', '.join(map(str, names))[:200]}",
            hint="an image is saved by its id (docker save sha256:…), which brings no name along",
        )


def _check_image(
    tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], image_digest: str
) -> None:
    digests = [
        "sha256:" + hashlib.sha256(_read(tar, members, str(entry.get("Config")))).hexdigest()
        for entry in _manifest(tar, members)
    ]
    if digests != [image_digest]:
        raise ProtocolError(
            "image_mismatch",
            f"the archive holds {', '.join(digests)[:200] or 'no image'}, not {image_digest}",
            hint="the validator's archive is another image's; nothing was loaded",
        )


def _manifest(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo]) -> list[dict[str, Any]]:
    return _objects(_document(tar, members, _MANIFEST))


def _objects(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _bad("a list of images in it is none")
    return value


def _document(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str) -> Any:
    return json.loads(_read(tar, members, name))


def _read(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str) -> bytes:
    member = members.get(name)
    if member is None or not member.isfile() or member.size > MAX_DOCUMENT_BYTES:
        raise _bad(f"it has no {name[:100]}, or too large a one")
    file = tar.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise _bad(f"{name[:100]} is cut off")
    return data


def _bad(text: str) -> ProtocolError:
    return ProtocolError(
        "bad_archive",
        f"the file is no archive of an image as an engine saves it: {text}",
        hint="fetch it again; if that does not help, the validator has to build the image anew",
    )
