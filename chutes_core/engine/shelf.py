"""Images that a role keeps in its engine: named, listed, and removed.

An image is kept under `repository:image id`; a miner's go oldest first, and naming one again counts
as use; a validator's are told by a label and go with their records. Invariant: an image that a
container uses, and one that somebody else named too, is never removed.
"""

from dataclasses import dataclass

from docker import DockerClient

from chutes_core.base.errors import Conflict, NotFound
from chutes_core.engine.failures import explained

_NO_NAME, _NO_DIGEST = "<none>:<none>", "<none>@<none>"


@dataclass(frozen=True)
class Labelled:
    """The images with a label: all their tags, and the ids of those that have no name at all."""

    names: tuple[str, ...]
    unnamed: tuple[str, ...]

    def names_under(self, repository: str) -> tuple[str, ...]:
        """Return the names ``repository:…``."""
        return tuple(name for name in self.names if name.rpartition(":")[0] == repository)


def labelled(client: DockerClient, label: str, value: str) -> Labelled:
    """Return the images with a label.

    Raises:
        ChutesError: the engine does not answer.
    """
    with explained("list images"):
        listed = client.api.images(filters={"label": f"{label}={value}"})
    names: list[str] = []
    unnamed: list[str] = []
    for image in listed:
        own = [tag for tag in image.get("RepoTags") or () if tag != _NO_NAME]
        names += own
        digests = [one for one in image.get("RepoDigests") or () if one != _NO_DIGEST]
        if not own and not digests:
            unnamed.append(str(image["Id"]))
    return Labelled(tuple(names), tuple(unnamed))


def take_away(client: DockerClient, name: str) -> bool:
    """Remove a name, or an image without one; False where it is in use or gone already.

    Raises:
        ChutesError: the engine does not answer.
    """
    return _remove(client, name)


def put(client: DockerClient, image_digest: str, repository: str, image_id: str) -> None:
    """Name an image that the engine has, or note its use.

    Raises:
        ChutesError: the engine refuses, or has no such image.
    """
    with explained("name an image"):
        client.api.tag(image_digest, repository, image_id)


def kept(client: DockerClient, repository: str) -> frozenset[str]:
    """Return the ids of the images that are kept.

    Raises:
        ChutesError: the engine does not answer.
    """
    return frozenset(_names(client, repository))


def trim(client: DockerClient, repository: str, keep: int) -> tuple[str, ...]:
    """Remove the images used longest ago until ``keep`` are left; return the removed ids.

    Raises:
        ChutesError: the engine does not answer.
    """
    names = _names(client, repository)
    if len(names) <= keep:
        return ()
    oldest = sorted(names, key=lambda image_id: _used_at(client, f"{repository}:{image_id}"))
    removed = []
    for image_id in oldest[: len(names) - keep]:
        if _remove(client, f"{repository}:{image_id}"):
            removed.append(image_id)
    return tuple(removed)


def _names(client: DockerClient, repository: str) -> list[str]:
    with explained("list images"):
        listed = client.api.images(name=repository)
    tags = [tag for image in listed for tag in image.get("RepoTags") or ()]
    return [tag.rpartition(":")[2] for tag in tags if tag.rpartition(":")[0] == repository]


def _used_at(client: DockerClient, name: str) -> str:
    """Return when an image was last named; engines write RFC 3339 in UTC, which sorts as text."""
    try:
        with explained("look at an image"):
            return str(client.api.inspect_image(name)["Metadata"]["LastTagTime"])
    except NotFound:
        return ""


def _remove(client: DockerClient, name: str) -> bool:
    """Take our name away; the engine deletes the image with its last name, unless it is in use."""
    try:
        with explained("remove an image"):
            client.api.remove_image(name, force=False)
    except (Conflict, NotFound):
        return False
    return True
