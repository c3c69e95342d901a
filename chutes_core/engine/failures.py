"""What a Docker engine's refusals mean: each known one as a typed error with its cause and fix.

The only place where the engine's words are read. Invariant: an error of the SDK or of its HTTP
client never leaves the engine room; what is not known here still carries the engine's own text.
tests/unit/engine says which texts were seen on an engine (20.10) and which come from the engines'
and the NVIDIA toolkit's sources and reports.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from docker.errors import APIError, DockerException
from requests.exceptions import ReadTimeout, RequestException

from chutes_core.base.errors import (
    ChutesError,
    Conflict,
    Invalid,
    NotFound,
    TimedOut,
    Unavailable,
)

_IN_THE_WAY = frozenset({403, 409})  # 403: a network that has containers on it


@dataclass(frozen=True)
class _Known:
    pattern: re.Pattern[str]
    family: type[ChutesError]
    code: str
    cause: str
    hint: str


def _known(pattern: str, family: type[ChutesError], code: str, cause: str, hint: str) -> _Known:
    return _Known(re.compile(pattern, re.IGNORECASE), family, code, cause, hint)


_GPU_FIX = (
    "install the NVIDIA container toolkit, run `nvidia-ctk runtime configure --runtime=docker`,"
    " restart the engine"
)
_KNOWN = (
    _known(
        r"could not select device driver",
        Unavailable,
        "gpu_runtime_missing",
        "the Docker engine has no GPU runtime",
        _GPU_FIX,
    ),
    _known(
        r"unknown or invalid runtime name|unknown runtime",
        Unavailable,
        "unknown_runtime",
        "the Docker engine does not know the container runtime that was asked for",
        _GPU_FIX,
    ),
    _known(
        r"nvidia-container-cli|nvml error|device error: .*unknown device",
        Unavailable,
        "gpu_not_usable",
        "the GPU runtime could not give the GPU to the container",
        "run nvidia-smi on the host; a driver update needs a reboot",
    ),
    _known(
        r"no space left on device|disk quota exceeded",
        Unavailable,
        "disk_full",
        "the disk of the Docker engine is full",
        "see `docker system df`; `docker image prune -a` removes images that nothing uses",
    ),
    _known(
        r"cannot allocate memory|out of memory",
        Unavailable,
        "host_out_of_memory",
        "the host has not enough memory",
        "lower the memory of an instance, or run fewer",
    ),
    _known(
        r"no such image|manifest unknown|pull access denied|repository .* not found",
        NotFound,
        "no_such_image",
        "the Docker engine has no such image and cannot get it",
        "check the image's name and tag",
    ),
    _known(
        r"dial tcp|no such host|tls handshake|i/o timeout|x509:|failed to resolve reference",
        Unavailable,
        "image_pull_failed",
        "the Docker engine cannot reach the registry of an image",
        "check the image's name, and that the engine's host reaches the registry",
    ),
    _known(
        r"executable file not found|no such file or directory: unknown",
        Invalid,
        "no_executable",
        "the image has no such program",
        "is it in the image, and on its PATH?",
    ),
)


def known_failure(text: str, doing: str) -> ChutesError | None:
    """Return the typed error for a sentence of the engine (a build's or a load's stream), or None.

    Args:
        text: what the engine said.
        doing: what was tried, for the message, e.g. ``load an image``.
    """
    for known in _KNOWN:
        if known.pattern.search(text):
            message = f"{known.cause} (tried to {doing}: {text[-300:]})"
            return known.family(known.code, message, hint=known.hint)
    return None


def explain(error: Exception, doing: str) -> ChutesError:
    """Return the typed error for what an engine call raised.

    Args:
        error: of the SDK or of its HTTP client.
        doing: what was tried, for the message, e.g. ``start a container``.
    """
    text = str(error.explanation or error) if isinstance(error, APIError) else str(error)
    known = known_failure(text, doing)
    if known is not None:
        return known
    if isinstance(error, ReadTimeout):
        return TimedOut("engine_timeout", f"the Docker engine did not {doing} in time")
    if isinstance(error, APIError):
        if error.status_code == 404:
            return NotFound("not_in_engine", f"cannot {doing}: {text[-300:]}")
        family: type[ChutesError] = Conflict if error.status_code in _IN_THE_WAY else Unavailable
        return family("engine_refused", f"the Docker engine refused to {doing}: {text[-600:]}")
    return Unavailable(
        "engine_unreachable",
        f"the Docker engine cannot be reached to {doing}: {text[-200:]}",
        hint="is it running? `docker info` with the same DOCKER_HOST says more",
    )


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn what the block's engine calls raise into typed errors.

    Raises:
        ChutesError: see `explain`.
    """
    try:
        yield
    except (DockerException, RequestException, OSError) as error:
        raise explain(error, doing) from error
