"""What an image's archive holds, read before the engine is given it.

Path: `archive.load` -> `check_contents` -> the engine. An archive may name images (RepoTags, the
old ``repositories`` file, annotations of an OCI index), and an engine that loads it points those
names at what the archive brings: whoever made it could take over any name on this host. So it has
to hold exactly one image, the granted one, and no name. Invariant: what passes has one manifest
that every reader of tar files finds, without links that lead elsewhere; and whether an engine reads
the Docker form or the OCI layout, it finds the same image.

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
Members = dict[str, tarfile.TarInfo]
_MAX_DEPTH = 1  # an index in the index: an image for several platforms, of which one was saved
_NAMING = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


def check_contents(archive: Path, image_digest: str) -> tuple[str, ...]:
    """Check that an archive holds this image, no other, and gives no name to it.

    Returns:
        The ids that an engine may give the image: the granted one first.

    Raises:
        ProtocolError: ``bad_archive`` (no plain tar of an image), ``archive_names`` (it would
            name images on this engine), ``image_mismatch`` (it holds another image, or several).
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            ids = _ids(tar, _members(tar))
    except (tarfile.TarError, ValueError, TypeError, EOFError, RecursionError) as error:
        raise _bad(f"it cannot be read as one: {str(error)[:200]}") from error
    if image_digest not in ids:
        raise _mismatch(f"holds {', '.join(ids)[:200]}, not {image_digest}")
    return (image_digest, *(one for one in ids if one != image_digest))


def _ids(tar: tarfile.TarFile, members: Members) -> tuple[str, ...]:
    """Return all ids of the one image; both forms, where both are there, must lead to it."""
    forms = []
    if _MANIFEST in members:
        forms.append(_by_manifest(tar, members))
    if _INDEX in members:
        forms.append(_by_index(tar, members))
    if not forms:
        raise _bad(f"it has neither {_MANIFEST} nor {_INDEX}")
    for images in forms:
        if len(images) != 1:
            raise _mismatch(f"holds {len(images)} images")
    if len({images[0][0] for images in forms}) != 1:
        raise _mismatch(f"holds one image by its {_MANIFEST} and another by its {_INDEX}")
    return max((images[0] for images in forms), key=len)


def _members(tar: tarfile.TarFile) -> Members:
    """Return the members by their plain paths."""
    found: Members = {}
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


def _refuse_names(names: list[object]) -> None:
    if names:
        raise ProtocolError(
            "archive_names",
            f"the archive would give names on this engine: {', '.join(map(str, names))[:200]}",
            hint="an image is saved by its id (docker save sha256:…), which brings no name along",
        )


def _by_manifest(tar: tarfile.TarFile, members: Members) -> list[tuple[str, ...]]:
    """Return the configuration's digest of each image in manifest.json, the Docker form."""
    entries = _objects(_document(tar, members, _MANIFEST))
    names = [name for entry in entries for name in entry.get("RepoTags") or ()]
    if _REPOSITORIES in members:
        names += _document(tar, members, _REPOSITORIES) or ()
    _refuse_names(names)
    return [(_digest(_read(tar, members, str(entry.get("Config")))),) for entry in entries]


def _by_index(tar: tarfile.TarFile, members: Members) -> list[tuple[str, ...]]:
    """Return, of each image in index.json, the digests of configuration, manifest, and index."""
    return _images_of(tar, members, _object(_document(tar, members, _INDEX)), ())


def _images_of(
    tar: tarfile.TarFile, members: Members, index: dict[str, Any], above: tuple[str, ...]
) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    entries = _objects(index.get("manifests"))
    notes = [_object(entry.get("annotations") or {}) for entry in entries]
    _refuse_names([note[key] for note in notes for key in _NAMING if key in note])
    for entry in entries:
        digest = str(entry.get("digest"))
        document = _object(json.loads(_blob(tar, members, digest)))
        if "manifests" in document and len(above) < _MAX_DEPTH:
            found += _images_of(tar, members, document, (digest, *above))
            continue
        config = str(_object(document.get("config")).get("digest"))
        _blob(tar, members, config)
        found.append((config, digest, *above))
    return found


def _blob(tar: tarfile.TarFile, members: Members, digest: str) -> bytes:
    data = _read(tar, members, f"blobs/sha256/{digest.removeprefix('sha256:')}")
    if _digest(data) != digest:
        raise _bad(f"a blob of it is not {digest[:80]}")
    return data


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad("an object in it is none")
    return value


def _objects(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _bad("a list of images in it is none")
    return value


def _document(tar: tarfile.TarFile, members: Members, name: str) -> Any:
    return json.loads(_read(tar, members, name))


def _read(tar: tarfile.TarFile, members: Members, name: str) -> bytes:
    member = members.get(name)
    if member is None or not member.isfile() or member.size > MAX_DOCUMENT_BYTES:
        raise _bad(f"it has no {name[:100]}, or too large a one")
    file = tar.extractfile(member)
    data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise _bad(f"{name[:100]} is cut off")
    return data


def _mismatch(text: str) -> ProtocolError:
    return ProtocolError(
        "image_mismatch",
        f"the archive {text}",
        hint="the validator's archive is another image's; nothing was loaded",
    )


def _bad(text: str) -> ProtocolError:
    return ProtocolError(
        "bad_archive",
        f"the file is no archive of an image as an engine saves it: {text}",
        hint="fetch it again; if that does not help, the validator has to build the image anew",
    )
