"""An engine's answers that come as a stream of JSON messages, one a line.

Path: `build` and `pull` read their progress here. Invariant: a message has a bounded length.
"""

import json
from collections.abc import Iterator
from typing import Any

import requests

from chutes_core.base.errors import Unavailable

_CHUNK_BYTES = 64 * 1024
_MAX_MESSAGE_BYTES = 1024 * 1024


def messages(response: requests.Response) -> Iterator[dict[str, Any]]:
    """Yield the engine's messages as they come.

    Raises:
        Unavailable: ``engine_refused``: a message without an end.
    """
    rest = b""
    for chunk in response.iter_content(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_MESSAGE_BYTES:
            raise Unavailable("engine_refused", "the engine sent a message without an end")
        for line in lines:
            if line.strip():
                yield json.loads(line)


def message_of(response: requests.Response) -> str:
    """Return what the engine says in an answer that is an error."""
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"the engine answered {response.status_code}"
