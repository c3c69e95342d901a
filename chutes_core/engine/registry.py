"""Images in an OCI registry: pushed by the validator's engine, pulled by digest by the miner's.

Path: build_job -> `push` -> registry -> `pull_exactly` -> the miner's engine. The digest is the
manifest's, which names the configuration and every layer; the engine that pulls checks them all.
Invariants: the engine holds no name of the registry afterwards, so that an image goes with the
name that its room gave it; credentials go into one request and are kept by no engine; `push` ends
with its caller, as a pull does.

Sources: Docker Engine API 1.41 (/images/{name}/push, X-Registry-Auth), OCI distribution
specification 1.0 (deleting a manifest).
"""

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import docker
import requests
from docker.auth import encode_header

from chutes_core.base.errors import ChutesError, ProtocolError, TooLarge, Unavailable
from chutes_core.engine.failures import explained, known_failure
from chutes_core.engine.pull import SILENCE_S, pull
from chutes_core.engine.stream import message_of, messages

DELETE_TIMEOUT_S = 20
MAX_PULL_BYTES = 80 * 1024**3
"""Of an image's layers as the registry has them; the same as of an archive."""
_TAG = "chutes"
_LOCAL = ("127.", "localhost:")
_GONE = frozenset({200, 202, 404})
_KEEPS_ALL = 405
_NOT_LET_IN = re.compile(r"unauthorized|denied|authentication required|no basic auth")
_PULL_FIX = (
    "a pass that has ended comes anew with the next launch; with credentials of one's own:"
    " CHUTES_MINER_REGISTRY, _USER and _PASSWORD"
)
_PUSH_FIX = "is the registry up, does it take this validator's credentials, has its disk room?"


@dataclass(frozen=True)
class Access:
    """What a registry is shown: a bearer token, or a user's name and password, or nothing."""

    token: str = ""
    user: str = ""
    password: str = ""

    def for_engine(self) -> Mapping[str, str]:
        """Return the fields of X-Registry-Auth."""
        if self.token:
            return {"registrytoken": self.token}
        return {"username": self.user, "password": self.password} if self.user else {}


def push(
    client: docker.DockerClient,
    image: str,
    repository: str,
    access: Access,
    on_line: Callable[[str], None],
    keep_on: Callable[[], bool],
) -> str:
    """Push an image and return its manifest's digest there; stops where ``keep_on`` says no.

    Args:
        client: the engine that has the image.
        image: its id.
        repository: ``host/path`` of the registry; the tag is `_TAG`, and means nothing.
        access: credentials that may push.
        on_line: told what the engine says.
        keep_on: asked at each message.

    Raises:
        Unavailable: ``image_push_failed``, ``registry_unreachable``, ``disk_full``.
    """
    name = f"{repository}:{_TAG}"
    with explained("name an image"):
        client.api.tag(image, repository, _TAG)
    try:
        return _push(client, repository, access, on_line, keep_on)
    finally:
        _forget_names(client, name, image)


def pull_exactly(
    client: docker.DockerClient,
    reference: str,
    access: Access,
    name_it: Callable[[str], None],
    on_bytes: Callable[[int, int], None] | None = None,
) -> str:
    """Pull ``host/path@sha256:…`` and return the engine's id of it, which is named before that.

    Args:
        client: the engine.
        reference: the registry's name for the image, with the digest.
        access: credentials that may pull.
        name_it: given the id, gives the image a name of ours, so that it stays.
        on_bytes: told how many bytes of how many are here.

    Raises:
        ProtocolError: ``bad_image_ref``: no digest. Unavailable: ``image_pull_denied``.
        TooLarge: ``bad_image_ref``: over MAX_PULL_BYTES, seen as its layers begin to come.
        NotFound, Unavailable: see `pull`.
    """
    if "@sha256:" not in reference:
        raise ProtocolError("bad_image_ref", "the image is not named by its digest")

    def bounded(got: int, total: int) -> None:
        if total > MAX_PULL_BYTES:
            raise TooLarge("bad_image_ref", f"the image's layers are over {MAX_PULL_BYTES} bytes")
        if on_bytes is not None:
            on_bytes(got, total)

    try:
        pull(client, reference, _ignore, _always, dict(access.for_engine()), bounded)
    except ChutesError as error:
        if _NOT_LET_IN.search(error.message):
            raise Unavailable("image_pull_denied", error.message, hint=_PULL_FIX) from error
        raise
    with explained("look at an image"):
        held = str(client.api.inspect_image(reference)["Id"])
    name_it(held)
    _forget_names(client, reference, held)
    return held


def delete(reference: str, access: Access) -> bool:
    """Remove an image from its registry; False where the registry deletes nothing.

    Raises:
        Unavailable: ``registry_unreachable``: try again.
    """
    repository, _, digest = reference.partition("@")
    host, _, path = repository.partition("/")
    scheme = "http" if host.startswith(_LOCAL) else "https"
    headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
    try:
        answer = requests.delete(
            f"{scheme}://{host}/v2/{path}/manifests/{digest}",
            headers=headers,
            auth=(access.user, access.password) if access.user else None,
            timeout=DELETE_TIMEOUT_S,
            allow_redirects=False,
        )
    except requests.exceptions.RequestException as error:
        raise _unreachable(host, str(error)[:200]) from error
    if answer.status_code in _GONE:
        return True
    if answer.status_code == _KEEPS_ALL:
        return False
    raise _unreachable(host, f"it answered {answer.status_code}")


def _push(
    client: docker.DockerClient,
    repository: str,
    access: Access,
    on_line: Callable[[str], None],
    keep_on: Callable[[], bool],
) -> str:
    api, doing = client.api, f"push to {repository[:200]}"
    digest = ""
    with explained(doing):
        response = api.post(
            f"{api.base_url}/v{api.api_version}/images/{repository}/push",
            params={"tag": _TAG},
            headers={"X-Registry-Auth": encode_header(dict(access.for_engine()))},
            stream=True,
            timeout=SILENCE_S,
        )
        with response:
            if response.status_code != 200:
                raise _refused(message_of(response), doing)
            for message in messages(response):
                if not keep_on():
                    raise Unavailable("image_push_failed", "the push was cut off", hint=_PUSH_FIX)
                digest = _take(message, doing, on_line) or digest
    if not digest:
        raise _refused("the engine named no digest", doing)
    return digest


def _take(message: dict[str, Any], doing: str, on_line: Callable[[str], None]) -> str:
    if "error" in message:
        raise _refused(str(message["error"]), doing)
    if "status" in message and "progressDetail" not in message:
        on_line(str(message["status"]))
    aux = message.get("aux")
    return str(aux.get("Digest") or "") if isinstance(aux, dict) else ""


def _refused(text: str, doing: str) -> ChutesError:
    known = known_failure(text, doing)
    if known is not None and known.code == "disk_full":
        return known
    return Unavailable("image_push_failed", f"cannot {doing}: {text[:300]}", hint=_PUSH_FIX)


def _forget_names(client: docker.DockerClient, name: str, image: str) -> None:
    """Take the registry's names away; another one still names the image."""
    repository = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
    names = [name]
    with contextlib.suppress(ChutesError), explained("look at an image"):
        found = client.api.inspect_image(image)
        held = [*(found.get("RepoTags") or ()), *(found.get("RepoDigests") or ())]
        names = [one for one in held if one.startswith((f"{repository}@", f"{repository}:{_TAG}"))]
        if len(names) == len(held):
            return  # nothing else names it
    for one in names:
        with contextlib.suppress(ChutesError), explained("take a name away"):
            client.api.remove_image(one, noprune=True)


def _unreachable(host: str, why: str) -> Unavailable:
    return Unavailable(
        "registry_unreachable", f"the registry {host[:100]} cannot be used: {why}", hint=_PUSH_FIX
    )


def _ignore(_: str) -> None:
    return


def _always() -> bool:
    return True
