"""How an image becomes `built`: the seam between the catalogue and what really builds.

A builder is slow and runs in a thread. `DockerBuilder` (docker_builder.py) is for production.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from chutes_core.validator.domain.images import Image
from chutes_core.validator.store.images import LogType

Log = Callable[[LogType, str], None]
Holds = Callable[[str], bool]
"""Tells whether there is an image with this id."""


@dataclass(frozen=True)
class Artefact:
    """What a build leaves for miners: the image's digest, and an archive or a registry's name."""

    image_digest: str
    archive_sha256: str = ""
    archive_bytes: int = 0
    registry_ref: str = ""


@dataclass(frozen=True)
class DockerBuildLimits:
    """What one image may use while it is built, and how large it may become."""

    time_s: float = 3600.0
    log_bytes: int = 16 * 1024 * 1024
    log_lines: int = 50_000
    memory_bytes: int = 8 * 1024**3
    cpus: float = 2.0
    processes: int = 2048
    min_free_bytes: int = 5 * 1024**3
    image_bytes: int = 40 * 1024**3


class BuildFailed(Exception):
    """A build ended without an image; the text is shown to the developer as the status.

    Args:
        text: cause, what to do, and the last lines of output.
        code: for programs.
        hint: what to do, alone.
    """

    def __init__(self, text: str, *, code: str = "build_failed", hint: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.hint = hint


class BuildStopped(Exception):
    """The builder is closing: the image waits for the next one."""


class Builder(Protocol):
    """Turns a published image into something that a miner can run."""

    def build(self, image: Image, log: Log) -> Artefact | None:
        """Build the image, logging line by line; None where miners prepare it themselves.

        Raises:
            BuildFailed: with the reason.
            BuildStopped: after `close`.
            Unavailable: it cannot build now; another try makes sense.
        """
        ...

    def forget(self, image: Image) -> None:
        """Remove what a deleted image left outside of the store; never raises for what is gone."""
        ...

    def sweep(self, holds: Holds) -> int:
        """Remove what deleted images left in the engine; return how many.

        Raises:
            Unavailable: the engine is away.
        """
        ...

    def close(self) -> None:
        """Cut off what is being built."""
        ...


class ProcessRuntimeBuilder:
    """Builds nothing: under the process runtime (devnet only) a miner makes a venv instead."""

    def build(self, image: Image, log: Log) -> Artefact | None:
        """Say in the log that there is no build."""
        log("stdout", f"image: {image.full_name}")
        log("stdout", f"bundle: {image.bundle_bytes} bytes, sha256 {image.bundle_sha256}")
        log("stdout", "build: skipped (process runtime)")
        return None

    def forget(self, image: Image) -> None:
        """Do nothing: there is nothing outside of the store."""

    def sweep(self, holds: Holds) -> int:
        """Do nothing: nothing is left anywhere."""
        return 0

    def close(self) -> None:
        """Do nothing: no build takes time."""
