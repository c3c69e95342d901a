"""How images become running instances: the Protocol that docker and process runtimes share.

Invariant: a runtime keeps what it needs to recognise its instances outside of the miner's memory,
so that a miner that was killed finds them again by `instances()`, and can tell how one ended.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from chutes_core.base.errors import ChutesError
from chutes_core.wire.control import RuntimeName


class RuntimeFailed(ChutesError):
    """An image cannot be prepared or an instance cannot be started; ``code`` is the reason."""


@dataclass(frozen=True)
class ImageBundle:
    """A fetched bundle (zip of ``Dockerfile`` and ``context/``) whose digest was checked."""

    image_id: str
    name: str
    sha256: str
    path: Path


@dataclass(frozen=True)
class PreparedImage:
    """An image that instances can be started from."""

    image_id: str
    sha256: str


@dataclass(frozen=True)
class InstanceSpec:
    """One instance to start; ``runner_env`` holds its CHUTES_RUNNER_* variables."""

    launch_id: str
    image: PreparedImage
    runner_env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """What an instance says once it listens: its loopback port and X25519 public key (hex)."""

    port: int
    public_key: str


@dataclass(frozen=True)
class Ended:
    """How an instance ended: an exit code, or a negative signal number; None when unknown."""

    exit_code: int | None


class Runtime(Protocol):
    """Prepares images, starts and stops instances, and finds them again after a restart."""

    @property
    def name(self) -> RuntimeName:
        """Return the runtime's name on the wire."""
        ...

    def warm_images(self) -> frozenset[str]:
        """Return ids of images that are prepared."""
        ...

    async def prepare(self, bundle: ImageBundle) -> PreparedImage:
        """Prepare an image, or return at once where it is prepared.

        Raises:
            RuntimeFailed: ``image_failed`` with the end of the build log.
        """
        ...

    async def start(self, spec: InstanceSpec) -> None:
        """Start an instance.

        Raises:
            RuntimeFailed: ``start_failed``.
        """
        ...

    async def wait_ready(self, launch_id: str, timeout_s: float) -> Ready:
        """Return where the instance listens.

        Raises:
            RuntimeFailed: ``instance_ended`` or ``listen_timeout``.
        """
        ...

    def ended(self, launch_id: str) -> Ended | None:
        """Return how an instance ended, or None while it runs."""
        ...

    def instances(self) -> tuple[str, ...]:
        """Return the launch ids of all instances whose traces are on this host, ended ones too."""
        ...

    def log_tail(self, launch_id: str, max_chars: int) -> str:
        """Return the last lines of an instance's output."""
        ...

    async def stop(self, launch_id: str, grace_s: float) -> None:
        """End an instance: ask, wait for the grace time, then kill; returns when it is gone."""
        ...

    def forget(self, launch_id: str) -> None:
        """Remove the traces of an ended instance."""
        ...
