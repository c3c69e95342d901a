"""Fetching an image from a registry, by its name.

Path: docker_builder looks at a base before it builds on it; a miner pulls a chute's image by its
digest (`registry`). The request is made on the SDK's own
HTTP session because `api.pull` hides the response, which has to be closed. Invariant: the pull ends
with the caller: when `keep_on` says no, and when it fails, the connection is closed, upon which the
engine gives up.
"""

from collections.abc import Callable, Mapping
from typing import Any

import docker
from docker.auth import encode_header, get_config_header, resolve_repository_name
from docker.utils import parse_repository_tag

from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.engine.failures import explained, known_failure
from chutes_core.engine.stream import message_of, messages

SILENCE_S = 600
_WHOLE = frozenset({"Verifying Checksum", "Download complete", "Extracting", "Pull complete"})


def pull(
    client: docker.DockerClient,
    name: str,
    on_line: Callable[[str], None],
    keep_on: Callable[[], bool],
    credentials: dict[str, str] | None = None,
    on_bytes: Callable[[int, int], None] | None = None,
) -> None:
    """Pull an image, with these credentials; None: with those that this host has for its registry.

    Args:
        client: the engine.
        name: of the image.
        on_line: told what the engine says.
        keep_on: asked at each message.
        credentials: see above.
        on_bytes: told how many bytes of how many are here, as far as the engine has said.

    Raises:
        NotFound: ``no_such_image``. Unavailable: ``image_pull_failed``, ``disk_full``, ….
    """
    repository, tag = parse_repository_tag(name)
    api, doing = client.api, f"pull {name[:200]}"
    with explained(doing):
        if credentials is not None:
            auth = encode_header(credentials)
        else:
            auth = get_config_header(api, resolve_repository_name(repository)[0])
        response = api.post(
            f"{api.base_url}/v{api.api_version}/images/create",
            params={"fromImage": repository, "tag": tag or "latest"},
            headers={"X-Registry-Auth": auth} if auth else {},
            stream=True,
            timeout=SILENCE_S,
        )
        with response:
            if response.status_code != 200:
                raise _refused(message_of(response), doing)
            layers = LayerBytes()
            for message in messages(response):
                _take(message, doing, on_line)
                if on_bytes is not None and layers.take(message):
                    on_bytes(layers.got, layers.total)
                if not keep_on():
                    return


class LayerBytes:
    """Adds up what an engine says of an image's layers.

    Source: the `progressDetail` of the engine API's POST /images/create. A layer's size is known
    once its download has begun; one that is here already counts for nothing.
    """

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}

    @property
    def got(self) -> int:
        """Bytes that are here."""
        return sum(got for got, _ in self._layers.values())

    @property
    def total(self) -> int:
        """Bytes of all layers whose size is known."""
        return sum(total for _, total in self._layers.values())

    def take(self, message: Mapping[str, Any]) -> bool:
        """Read one message; True where it changed the sums."""
        layer, detail = str(message.get("id", "")), message.get("progressDetail")
        status = str(message.get("status", ""))
        if status == "Downloading" and isinstance(detail, dict):
            got, total = _number(detail.get("current")), _number(detail.get("total"))
            self._layers[layer] = (got, max(got, total))
        elif status in _WHOLE and layer in self._layers:
            total = self._layers[layer][1]
            self._layers[layer] = (total, total)
        else:
            return False
        return True


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _take(message: dict[str, Any], doing: str, on_line: Callable[[str], None]) -> None:
    if "error" in message:
        raise _refused(str(message["error"]), doing)
    if "status" in message and "progressDetail" not in message:
        on_line(str(message["status"]))


def _refused(text: str, doing: str) -> ChutesError:
    return known_failure(text, doing) or Unavailable(
        "image_pull_failed",
        f"cannot {doing}: {text[:300]}",
        hint="the transfer broke off, or the registry's copy is damaged: try again, or choose"
        " another tag or registry",
    )
