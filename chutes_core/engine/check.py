"""Looking at an image: what its configuration says, and which Python answers inside.

Path: catalog's builder looks at what a developer's Dockerfile made before the runner's layer goes
on top. Invariant: what runs inside runs without network, rights or a writable root, with little
memory, and its container is removed whatever happens.
"""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import docker

from chutes_core.base.errors import ChutesError, Invalid, NotFound, TimedOut
from chutes_core.engine.failures import explained

CHECK_TIMEOUT_S = 60
CHECK_MEMORY_BYTES = 512 * 1024 * 1024
MAX_OUTPUT = 4000
_PYTHONS = ("python", "python3")
_ASK = (
    "import sys, os, json\n"
    "try:\n"
    "    import pip\n"
    "    has_pip = True\n"
    "except Exception:\n"
    "    has_pip = False\n"
    "print(json.dumps({'python': sys.executable, 'version': list(sys.version_info[:3]),"
    " 'pip': has_pip}))\n"
)


@dataclass(frozen=True)
class ImageFacts:
    """An image's configuration, as far as it matters here."""

    digest: str
    size_bytes: int
    os: str
    architecture: str
    user: str
    entrypoint: tuple[str, ...]
    volumes: tuple[str, ...]
    triggers: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    cuda: str = ""
    """The CUDA release that the image says it has (``CUDA_VERSION``, as NVIDIA's bases set it)."""


@dataclass(frozen=True)
class PythonFacts:
    """The interpreter that an image's PATH leads to."""

    command: str
    executable: str
    version: tuple[int, int, int]
    has_pip: bool


def image_facts(client: docker.DockerClient, image: str) -> ImageFacts:
    """Return what the engine knows of an image.

    Raises:
        NotFound: ``no_such_image``.
    """
    with explained("look at an image"):
        found: dict[str, Any] = client.api.inspect_image(image)
    config = found.get("Config") or {}
    return ImageFacts(
        digest=found["Id"],
        size_bytes=int(found.get("Size") or found.get("VirtualSize") or 0),
        os=str(found.get("Os", "")),
        architecture=str(found.get("Architecture", "")),
        user=str(config.get("User") or ""),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        volumes=tuple(config.get("Volumes") or ()),
        triggers=tuple(config.get("OnBuild") or ()),
        names=tuple(found.get("RepoTags") or ()),
        labels=tuple(sorted((config.get("Labels") or {}).items())),
        cuda=_variable(config.get("Env") or (), "CUDA_VERSION"),
    )


def python_facts(client: docker.DockerClient, image: str) -> PythonFacts:
    """Ask the image's Python for its version.

    Raises:
        Invalid: ``no_python``, or ``python_failed`` with what it printed.
    """
    for command in _PYTHONS:
        try:
            return _ask(client, image, command)
        except Invalid as error:
            if error.code != "no_executable":
                raise
    raise Invalid(
        "no_python",
        "the image has no python on its PATH",
        hint="start from a base with Python 3.10 or later, or use Image.with_python()",
    )


def _variable(environment: Iterable[str], name: str) -> str:
    """Return a variable's value, cut to what a line can show; empty where it is not set."""
    for line in environment:
        key, _, value = line.partition("=")
        if key == name:
            return value[:40]
    return ""


def _ask(client: docker.DockerClient, image: str, command: str) -> PythonFacts:
    host = client.api.create_host_config(
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit=CHECK_MEMORY_BYTES,
        memswap_limit=CHECK_MEMORY_BYTES,
        pids_limit=64,
        log_config={"Type": "json-file", "Config": {"max-size": "64k", "max-file": "1"}},
    )
    with explained("ask the image for its Python"):
        created = client.api.create_container(
            image, entrypoint=[command], command=["-B", "-c", _ASK], user="0:0", host_config=host
        )
    try:
        with explained("ask the image for its Python"):
            client.api.start(created["Id"])
            code = _wait(client, created["Id"])
            out = client.api.logs(created["Id"], stdout=True, stderr=True, tail=50)
        return _parse(command, code, out.decode(errors="replace")[-MAX_OUTPUT:])
    finally:
        with contextlib.suppress(ChutesError), explained("remove a container"):
            client.api.remove_container(created["Id"], force=True, v=True)


def _wait(client: docker.DockerClient, container: str) -> int:
    try:
        with explained("wait for the image's Python"):
            return int(client.api.wait(container, timeout=CHECK_TIMEOUT_S)["StatusCode"])
    except (TimedOut, NotFound) as error:
        raise Invalid("python_failed", "the image's Python did not answer in time") from error


def _parse(command: str, code: int, output: str) -> PythonFacts:
    for line in reversed(output.splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found = json.loads(line)
            major, minor, micro = (int(part) for part in found["version"])
            return PythonFacts(command, str(found["python"]), (major, minor, micro), found["pip"])
    raise Invalid(
        "python_failed",
        f"{command} of the image ended with {code}: {output.strip()[-500:]}",
        hint="does `python -c 'print(1)'` work in the image?",
    )
