"""How images become running instances: the Protocol that docker and process runtimes share.

Invariant: a runtime keeps what it needs to recognise its instances outside of the miner's memory,
so that a miner that was killed finds them again by `instances()`, and can tell how one ended.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from chutes_core.base.errors import ChutesError
from chutes_core.wire.control import ImageRef, RuntimeName

HF_HOME = "HF_HOME"
"""Where the libraries of Hugging Face keep what they fetch."""
CACHE_DIR = "CHUTES_CACHE_DIR"
"""Tells a chute its folder for whatever else it wants to find again."""


def cache_environment(folder: str) -> dict[str, str]:
    """Return the variables that lead libraries to an instance's model cache."""
    return {CACHE_DIR: folder, HF_HOME: f"{folder}/huggingface"}


class RuntimeFailed(ChutesError):
    """An image cannot be prepared or an instance cannot be started; ``code`` is the reason."""


@dataclass(frozen=True)
class ImageBundle:
    """A fetched image whose SHA-256 was checked.

    A zip of ``Dockerfile`` and ``context/`` (process runtime), or an archive of the built image
    (docker), which then has an ``image_digest``.
    """

    image_id: str
    name: str
    sha256: str
    path: Path
    image_digest: str = ""


@dataclass(frozen=True)
class PreparedImage:
    """An image that instances can be started from; ``image_digest`` is an engine's name for it."""

    image_id: str
    sha256: str
    image_digest: str = ""


@dataclass(frozen=True)
class InstanceSpec:
    """One instance to start.

    Args:
        launch_id: of the grant.
        image: what it is started from.
        runner_env: its CHUTES_RUNNER_* variables.
        gpu_count: how many GPUs it was granted, stand-ins included.
        device_uuids: those of them that are real devices.
        allow_egress: whether it may dial out for good, not only while its start-up hooks run.
        cache: its chute's folder on this host (miner/cache), or None.
    """

    launch_id: str
    image: PreparedImage
    runner_env: Mapping[str, str] = field(default_factory=dict)
    gpu_count: int = 1
    device_uuids: tuple[str, ...] = ()
    allow_egress: bool = False
    cache: Path | None = None


@dataclass(frozen=True)
class StandBy:
    """An instance that is held ready without a launch, without code and without a device.

    Args:
        image: what it is started from.
        gpu_count: so many provers' interpreters wait with it.
        allow_egress: as in InstanceSpec.
        declared: its GPUs are stand-ins.
        graval_python: runs the provers, where the runtime has no own.
        cache: as in InstanceSpec, where it cannot be given later.
    """

    image: PreparedImage
    gpu_count: int
    allow_egress: bool
    declared: bool
    graval_python: str
    cache: Path | None = None

    def fits(self, spec: InstanceSpec) -> bool:
        """Tell whether it can become this instance."""
        own, its = self.image, spec.image
        return (
            (own.sha256, own.image_digest) == (its.sha256, its.image_digest)
            and (self.gpu_count, self.allow_egress) == (spec.gpu_count, spec.allow_egress)
            and (self.declared, self.cache) == (not spec.device_uuids, spec.cache)
        )

    @property
    def runner_env(self) -> dict[str, str]:
        """Return the variables that make a runner wait."""
        wanted = {"provers": self.gpu_count, "declared": self.declared}
        return {
            "CHUTES_RUNNER_STAND_BY": json.dumps(wanted),
            "CHUTES_RUNNER_GRAVAL_PYTHON": self.graval_python,
        }


@dataclass(frozen=True)
class Ready:
    """What an instance says once it listens: its port and X25519 public key (hex)."""

    port: int
    public_key: str


@dataclass(frozen=True)
class Ended:
    """How an instance ended: an exit code, or a negative signal number; None when unknown.

    ``reason`` is a code that says more, where the runtime knows one.
    """

    exit_code: int | None
    reason: str = ""


class Runtime(Protocol):
    """Prepares images, starts and stops instances, and finds them again after a restart."""

    @property
    def name(self) -> RuntimeName:
        """Return the runtime's name on the wire."""
        ...

    async def refresh(self) -> None:
        """Look at what runs; `ended`, `instances` and `warm_images` answer as of the last look.

        Never raises: where nothing can be seen, nothing counts as ended.
        """
        ...

    def warm_images(self) -> frozenset[str]:
        """Return ids of images that are prepared."""
        ...

    async def known(self, image: ImageRef) -> PreparedImage | None:
        """Return the image where it is prepared already, so that nothing has to be fetched.

        Raises:
            ChutesError: the engine cannot be asked.
        """
        ...

    async def prepare(self, bundle: ImageBundle) -> PreparedImage:
        """Prepare an image, or return at once where it is prepared.

        Raises:
            ChutesError: ``image_failed`` with the end of the build log, or the engine's refusal.
        """
        ...

    async def pull(self, image: ImageRef) -> PreparedImage:
        """Prepare an image that lies in a registry.

        Raises:
            ProtocolError: ``bad_image_ref``, ``registry_refused``.
            ChutesError: the engine's refusal, or the registry's.
        """
        ...

    async def start(self, spec: InstanceSpec) -> None:
        """Start an instance.

        Raises:
            ChutesError: ``start_failed``, or the engine's refusal; nothing is left behind.
        """
        ...

    async def stand_by(self, wanted: Sequence[StandBy]) -> tuple[StandBy, ...]:
        """Hold exactly these ready; return those that failed. `start` takes what fits."""
        ...

    async def wait_ready(self, launch_id: str, timeout_s: float) -> Ready:
        """Return where the instance listens.

        Raises:
            RuntimeFailed: ``instance_ended`` or ``listen_timeout``.
        """
        ...

    def host(self, launch_id: str) -> str:
        """Return the address at which this host reaches an instance that listens."""
        ...

    async def settle(self, launch_id: str) -> None:
        """Take from an active instance what it had for its start-up only (a way out).

        Raises:
            ChutesError: it could not be taken; try again.
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
