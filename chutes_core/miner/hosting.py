"""Which runtime hosts this miner's instances, and all that it needs, made ready at start-up.

Invariant: what comes back was tried: a docker runtime has reached its engine and its walls stand
(or it is a devnet, and the log says what is missing).
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loguru import logger

from chutes_core.base.errors import Invalid
from chutes_core.engine.connect import connect
from chutes_core.engine.registry import Access
from chutes_core.engine.run import Containers
from chutes_core.miner.archives import Archives
from chutes_core.miner.attempts import AttemptWatch, read_containers, read_nothing
from chutes_core.miner.bundles import Bundles
from chutes_core.miner.discovery import Validator
from chutes_core.miner.gpus import Device, read_devices, sort_devices
from chutes_core.miner.hostfacts import TransferMeter
from chutes_core.miner.launcher import Images
from chutes_core.miner.pulls import Pulls
from chutes_core.miner.runtime.base import ImageBundle, Runtime
from chutes_core.miner.runtime.beside import WithSystemRunner
from chutes_core.miner.runtime.docker import DockerRuntime
from chutes_core.miner.runtime.docker_describe import InstanceLimits
from chutes_core.miner.runtime.process import ProcessRuntime
from chutes_core.miner.runtime.registries import Registries
from chutes_core.miner.runtime.walls import Walls
from chutes_core.miner.settings import MinerSettings
from chutes_core.miner.validator_api import ValidatorApi
from chutes_core.wire.control import ImageRef

_MIB = 1024 * 1024
_KEPT_FOR_HOST = 0.1  # of memory
_LEAST_MEMORY = 256 * _MIB
Read = Callable[[], Sequence[Device]]


@dataclass(frozen=True)
class Hosting:
    """A runtime, its images (from where, how fast, how far), and what instances tried in vain.

    ``close`` is called at the very end.
    """

    runtime: Runtime
    images: Images
    close: Callable[[], Awaitable[None]]
    meter: TransferMeter = field(default_factory=TransferMeter)
    attempts: AttemptWatch = field(default_factory=lambda: AttemptWatch(read_nothing))
    pulls: Pulls = field(default_factory=Pulls)


async def make_hosting(
    settings: MinerSettings, api: ValidatorApi, *, hotkey_ss58: str, is_devnet: bool, gpus: int
) -> Hosting:
    """Make the chosen runtime ready.

    Raises:
        ChutesError: no engine answers, or the walls do not stand (see `Walls.raise_up`).
    """
    data, meter = settings.data_path, TransferMeter()
    if settings.runtime == "process":
        own = ProcessRuntime(data, environ=dict(os.environ))
        return Hosting(own, Bundles(data / "bundles", api, meter.add), _nothing, meter)
    pulls = Pulls()
    client = await asyncio.to_thread(connect, settings.docker_host or None)
    walls = Walls(client, hotkey_ss58, dns=settings.resolvers)
    networks = await asyncio.to_thread(walls.raise_up, is_devnet=is_devnet)
    limits = limits_of(settings, gpus=max(1, gpus))
    runtime = DockerRuntime(
        client,
        hotkey_ss58,
        walls=walls,
        limits=limits,
        dns=settings.resolvers,
        graval_home=settings.graval_path,
        keep_images=settings.keep_images,
        registries=Registries(
            settings.registry,
            Access(
                user=settings.registry_user,
                password=settings.registry_password.get_secret_value(),
            ),
            any_host=is_devnet,
        ),
        pulls=pulls,
    )
    logger.bind(
        memory_mib=limits.memory_bytes // _MIB, cpus=limits.cpus, inside=networks.inside.name
    ).info("instances run in containers")
    own = ProcessRuntime(data / "system", environ=dict(os.environ))
    images = ArchivedImages(data / "archives", meter, pulls)
    containers, mark = Containers(client, hotkey_ss58), walls.mark
    attempts = AttemptWatch(lambda: read_containers(containers, mark))
    return Hosting(WithSystemRunner(runtime, own), images, runtime.close, meter, attempts, pulls)


def gpu_count(settings: MinerSettings, read: Read = read_devices) -> int:
    """Return among how many GPUs this host's memory and CPUs are divided.

    Raises:
        Unavailable: ``nvml_failed``.
    """
    declared = sum(one.count for one in settings.declared_gpus)
    if declared:
        return declared
    offers, _ = sort_devices(tuple(read()))
    return len(offers)


def limits_of(settings: MinerSettings, *, gpus: int) -> InstanceLimits:
    """Return what an instance may use per GPU: as set, else an equal part of this host.

    Raises:
        Invalid: ``bad_instance_limits``: the parts do not fit into the memory.
    """
    memory = settings.instance_memory_mb * _MIB
    if not memory:
        memory = int(_host_memory() * (1 - _KEPT_FOR_HOST)) // gpus
    shm = settings.instance_shm_mb * _MIB or memory // 4
    tmp = settings.instance_tmp_mb * _MIB or memory // 4
    if memory < _LEAST_MEMORY or max(shm, tmp) > memory:
        raise Invalid(
            "bad_instance_limits",
            f"an instance cannot have {memory // _MIB} MiB of memory with {shm // _MIB} MiB of"
            f" shared memory and {tmp // _MIB} MiB of temporary space, which count as memory",
            hint="set CHUTES_MINER_INSTANCE_MEMORY_MB to more, the others to less",
        )
    cpus = settings.instance_cpus or (os.cpu_count() or 1) / gpus
    return InstanceLimits(memory, cpus, shm, tmp, settings.instance_pids)


def check_platform(settings: MinerSettings) -> None:
    """Check that the chosen runtime can work on this platform.

    Raises:
        Invalid: ``docker_needs_linux``.
    """
    if settings.runtime == "docker" and sys.platform != "linux":
        raise Invalid(
            "docker_needs_linux",
            "the docker runtime reaches containers over their bridge and filters what they send:"
            f" that needs Linux, and this is {sys.platform}",
            hint="run the miner on the Linux host itself; on a devnet: --runtime process",
        )


class ArchivedImages:
    """Images as archives from the validator; a file goes once the engine has loaded it."""

    def __init__(self, directory: Path, meter: TransferMeter, pulls: Pulls | None = None) -> None:
        self._archives = Archives(directory, measured=meter.add, pulls=pulls)

    async def get(self, validator: Validator, image: ImageRef) -> ImageBundle:
        """Fetch the archive, or go on where a fetch was cut short."""
        path = await self._archives.fetch(validator.url, image)
        return ImageBundle(image.image_id, image.name, image.sha256, path, image.image_digest)

    async def used(self, image: ImageRef) -> None:
        """Remove the file: the engine has its content."""
        await asyncio.to_thread(self._archives.forget, image.sha256)


def _host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


async def _nothing() -> None:
    return
