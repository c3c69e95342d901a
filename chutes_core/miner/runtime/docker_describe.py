"""What an instance's container is made of: image, environment, mounts, networks, bounds.

Path: DockerRuntime, DockerPlaces -> here -> engine.run.ContainerSpec. Invariants: nothing of the
miner's own environment or files is in a container but what is named here; the prover bundle is
mounted read-only, and the one folder that can be written to is its own chute's (miner/cache).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from chutes_core.engine.networks import Networks
from chutes_core.engine.run import CACHE, HOME, TMP, Containers, ContainerSpec, Limits
from chutes_core.miner.runtime.base import HF_HOME, InstanceSpec, cache_environment

RUNNER = ("-m", "chutes_core.runner")
GRAVAL_HOME = "/opt/graval"
_GRAVAL_PYTHON = "CHUTES_RUNNER_GRAVAL_PYTHON"


@dataclass(frozen=True)
class InstanceLimits:
    """What one GPU's part of an instance may use; an instance gets it once per GPU."""

    memory_bytes: int
    cpus: float
    shm_bytes: int
    tmp_bytes: int
    pids: int

    def of(self, gpu_count: int) -> Limits:
        """Return the limits of an instance with this many GPUs."""
        return Limits(
            memory_bytes=self.memory_bytes * gpu_count,
            nano_cpus=round(self.cpus * gpu_count * 1e9),
            pids=self.pids * gpu_count,
            shm_bytes=self.shm_bytes * gpu_count,
            tmp_bytes=self.tmp_bytes * gpu_count,
            home_bytes=self.tmp_bytes * gpu_count,
        )


class Describer:
    """Describes the containers of one miner.

    Args:
        containers: of the miner, to look into images.
        owner: the miner's hotkey.
        networks: as they are now.
        limits: of an instance.
        dns: resolvers that instances ask while they have a way out.
        graval_home: the prover bundle, or None for the image's own interpreter.
    """

    def __init__(
        self,
        containers: Containers,
        owner: str,
        *,
        networks: Callable[[], Networks],
        limits: InstanceLimits,
        dns: tuple[str, ...],
        graval_home: Path | None,
    ) -> None:
        self._containers = containers
        self._owner = owner
        self._networks = networks
        self._limits = limits
        self._dns = dns
        self._graval_home = graval_home

    def describe(self, spec: InstanceSpec, waits: bool) -> ContainerSpec:
        """Return an instance's container; one that waits has no way out. Asks the engine.

        Raises:
            ChutesError: ``image_without_runner``, or the engine's refusal.
        """
        image, networks = spec.image.image_digest, self._networks()
        return ContainerSpec(
            launch_id=spec.launch_id,
            owner=self._owner,
            image=image,
            entrypoint=(self._containers.interpreter(image), *RUNNER),
            environment=self.environment(spec.runner_env) | self._cache(spec),
            inside=networks.inside,
            outside=None if waits else networks.outside,
            egress="always" if spec.allow_egress else "startup",
            limits=self._limits.of(spec.gpu_count),
            gpu_uuids=spec.device_uuids,
            read_only_mounts=self._mounts(),
            writable_mounts={} if spec.cache is None else {str(spec.cache): CACHE},
            dns=self._dns,
            waits=waits,
        )

    def environment(self, runner_env: Mapping[str, str]) -> dict[str, str]:
        """Return a container's environment for a runner's."""
        environment = {
            "HOME": HOME,
            "TMPDIR": TMP,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **runner_env,
            "CHUTES_RUNNER_HOST": "0.0.0.0",  # noqa: S104 - of its own network namespace
        }
        environment.pop(_GRAVAL_PYTHON, None)  # the miner's own interpreter is not in there
        if self._graval_home is not None:
            environment[_GRAVAL_PYTHON] = f"{GRAVAL_HOME}/bin/python3"
        return environment

    def _cache(self, spec: InstanceSpec) -> dict[str, str]:
        """Return where models go; an image that brings its own with it keeps its own place."""
        if spec.cache is None:
            return {}
        found = cache_environment(CACHE)
        if self._containers.defines(spec.image.image_digest, HF_HOME):
            del found[HF_HOME]
        return found

    def _mounts(self) -> dict[str, str]:
        return {} if self._graval_home is None else {str(self._graval_home): GRAVAL_HOME}
