"""Fetching a base image from a registry, by its name.

Path: docker_builder looks at a base before it builds on it. Invariant: the pull ends with the
caller: when `keep_on` says no, the connection is closed and the engine gives up.
"""

from collections.abc import Callable
from typing import Any

import docker
from docker.utils import parse_repository_tag

from chutes_core.base.errors import Unavailable
from chutes_core.engine.failures import explained, known_failure


def pull(
    client: docker.DockerClient,
    name: str,
    on_line: Callable[[str], None],
    keep_on: Callable[[], bool],
) -> None:
    """Pull an image.

    Raises:
        NotFound: ``no_such_image``. Unavailable: ``image_pull_failed``, ``disk_full``, ….
    """
    repository, tag = parse_repository_tag(name)
    doing = f"pull {name[:200]}"
    with explained(doing):
        messages = client.api.pull(repository, tag=tag or "latest", stream=True, decode=True)
        for message in messages:
            _take(message, doing, on_line)
            if not keep_on():
                messages.close()
                return


def _take(message: dict[str, Any], doing: str, on_line: Callable[[str], None]) -> None:
    if "error" in message:
        text = str(message["error"])
        known = known_failure(text, doing)
        raise known or Unavailable("image_pull_failed", f"cannot {doing}: {text[:300]}")
    if "status" in message and "progressDetail" not in message:
        on_line(str(message["status"]))
