"""How an image becomes `built`. A builder is slow and runs in a thread."""

from collections.abc import Callable
from typing import Protocol

from chutes_core.validator.domain.images import Image
from chutes_core.validator.store.images import LogType

Log = Callable[[LogType, str], None]


class BuildFailed(Exception):
    """A build ended without an image; the text is shown to the developer as the status."""


class Builder(Protocol):
    """Turns a published image into something that a miner can run."""

    def build(self, image: Image, log: Log) -> None:
        """Build the image, logging line by line.

        Raises:
            BuildFailed: with the reason.
        """
        ...


class ProcessRuntimeBuilder:
    """Builds nothing: under the process runtime (devnet only) a miner makes a venv instead."""

    def build(self, image: Image, log: Log) -> None:
        """Say in the log that there is no build."""
        log("stdout", f"image: {image.full_name}")
        log("stdout", f"bundle: {image.bundle_bytes} bytes, sha256 {image.bundle_sha256}")
        log("stdout", "build: skipped (process runtime)")
