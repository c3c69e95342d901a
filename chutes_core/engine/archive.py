"""Images as files: saved by the validator, loaded by miners.

Path: validator's engine -> `save` -> blob -> HTTP -> miner's file -> `load` -> miner's engine.
Invariant: bytes stream through, never an image in memory; after `load` the engine holds exactly the
image that was named by its digest, or nothing new, and no name points elsewhere than before.

The digest is the id that the validator's engine gave the image: the SHA-256 of its configuration,
which names every layer by its own digest; or, where that engine keeps images in containerd's store
(Docker 25 and later can), of its manifest, which names the configuration. The miner's engine may be
of the other kind: `load` returns the id that this one has for the same image.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors

from chutes_core.base.errors import ChutesError, NotFound, ProtocolError
from chutes_core.engine.contents import check_contents
from chutes_core.engine.failures import explained, known_failure

CHUNK_BYTES = 1024 * 1024
STREAM_TIMEOUT_S = 600  # of silence
_LOADED = re.compile(r"Loaded image(?: ID)?: (\S+)")


def save(client: docker.DockerClient, image: str) -> Iterator[bytes]:
    """Yield an image as an uncompressed archive (`docker save`), chunk by chunk.

    Args:
        client: the engine.
        image: its id; an archive of an id carries no name, so `load` brings none along.

    Raises:
        NotFound: ``no_such_image``. Unavailable: the engine failed.
    """
    with explained("save an image"):
        yield from client.api.get_image(image, chunk_size=CHUNK_BYTES)


def holds(client: docker.DockerClient, image_digest: str) -> bool:
    """Tell whether the engine has this image."""
    try:
        with explained("look for an image"):
            return str(client.api.inspect_image(image_digest)["Id"]) == image_digest
    except NotFound:
        return False


def load(
    client: docker.DockerClient, archive: Path, *, image_digest: str, tag: str | None = None
) -> str:
    """Load an archive and return the image's id here; an image that is there is not loaded again.

    Args:
        client: the engine.
        archive: the file; its own hash was checked by whoever fetched it.
        image_digest: ``sha256:…``, what the loaded image must be: its configuration's digest, its
            manifest's or its index's.
        tag: a name ``repository:tag`` to give it, so that pruning leaves it alone.

    Raises:
        ProtocolError: ``bad_archive``, ``archive_names``, ``image_mismatch``: see `contents`.
        Unavailable: ``disk_full``, or the engine failed.
    """
    held: str | None = image_digest if holds(client, image_digest) else None
    if held is None:
        names = check_contents(archive, image_digest)
        before = _ids(client)
        loaded = _load(client, archive)
        held = next((name for name in names if holds(client, name)), None)
        if held is None:
            for name in set(loaded) - before:  # never an image that was there already
                remove(client, name)
            raise ProtocolError(
                "image_mismatch",
                f"the engine loaded {', '.join(loaded)[:200]}, not {image_digest}",
                hint="the engine read the archive otherwise than this miner: see both versions",
            )
    if tag is not None:
        repository, _, name = tag.rpartition(":")
        with explained("name an image"):
            client.api.tag(held, repository, name)
    return held


def remove(client: docker.DockerClient, image: str) -> bool:
    """Remove an image with all its names; False where there is none.

    Raises:
        Conflict: ``image_in_use`` by a container.
    """
    try:
        with explained("remove an image"):
            names = client.api.inspect_image(image).get("RepoTags") or []
            for name in names if image.startswith("sha256:") else [image]:
                client.api.remove_image(name)
            if not names:
                client.api.remove_image(image)
    except NotFound:
        return False
    return True


def _ids(client: docker.DockerClient) -> set[str]:
    with explained("list images"):
        return {str(image["Id"]) for image in client.api.images(all=True)}


def _load(client: docker.DockerClient, archive: Path) -> list[str]:
    """Send the file and return what the engine says it loaded."""
    loaded: list[str] = []
    api = client.api
    with archive.open("rb") as file, explained("load an image"):
        response = api.post(
            f"{api.base_url}/v{api.api_version}/images/load",
            params={"quiet": "1"},
            headers={"Content-Type": "application/x-tar"},
            data=file,
            stream=True,
            timeout=STREAM_TIMEOUT_S,
        )
        with response:
            if response.status_code != 200:
                raise _refused(response.text)
            for line in response.iter_lines(chunk_size=4096):
                loaded += _names(line)
    if not loaded:
        raise ProtocolError("image_mismatch", "the archive holds no image")
    return loaded


def _names(line: bytes) -> list[str]:
    try:
        message: Any = json.loads(line)
    except ValueError:
        return []
    if "error" in message:
        raise _refused(str(message["error"]))
    return _LOADED.findall(str(message.get("stream", "")))


def _refused(words: str) -> ChutesError:
    known = known_failure(words, "load an image")
    if known is not None:
        return known
    text = f"the engine cannot load the archive: {words.strip()[:300]}"
    return ProtocolError("bad_archive", text, hint="fetch the archive again")
