"""Fetching an image from a registry, by its name.

Path: docker_builder looks at a base before it builds on it; a miner pulls a chute's image by its
digest (`registry`). The request is made on the SDK's own
HTTP session because `api.pull` hides the response, which has to be closed. Invariant: the pull ends
with the caller: when `keep_on` says no, and when it fails, the connection is closed, upon which the
engine gives up.
"""

from collections.abc import Callable
from typing import Any

import docker
from docker.auth import encode_header, get_config_header, resolve_repository_name
from docker.utils import parse_repository_tag

from chutes_core.base.errors import ChutesError, Unavailable
from chutes_core.engine.failures import explained, known_failure
from chutes_core.engine.stream import message_of, messages

SILENCE_S = 600


def pull(
    client: docker.DockerClient,
    name: str,
    on_line: Callable[[str], None],
    keep_on: Callable[[], bool],
    credentials: dict[str, str] | None = None,
) -> None:
    """Pull an image, with these credentials; None: with those that this host has for its registry.

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
            for message in messages(response):
                _take(message, doing, on_line)
                if not keep_on():
                    return


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
