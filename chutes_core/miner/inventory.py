"""What this node has: its GPUs, which of them work, and for whom they are leased.

Answered signed to validators (`GET /inventory`). Invariant: nothing here is believed by anyone
until graval has run; a stand-in says that it is one.
"""

import hashlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loguru import logger

from chutes_core.base.gpus import GPU_CLASSES
from chutes_core.miner.gpus import Device, read_devices, sort_devices
from chutes_core.miner.settings import DeclaredGpus
from chutes_core.wire.control import (
    GpuClaim,
    GpuHealth,
    Handshake,
    HostFacts,
    Inventory,
    RuntimeName,
)
from chutes_core.wire.lease import Lease

_GIB = 1 << 30


@dataclass(frozen=True)
class Gpu:
    """One GPU of the node as the miner claims it."""

    uuid: str
    index: int
    gpu_class: str
    vram_bytes: int
    stand_in: bool

    def claim(self, launch_id: str | None = None, health: GpuHealth | None = None) -> GpuClaim:
        """Return the wire form, with the launch that the GPU serves and how well it is."""
        return GpuClaim(
            uuid=self.uuid,
            index=self.index,
            gpu_class=self.gpu_class,
            vram_bytes=self.vram_bytes,
            stand_in=self.stand_in,
            launch_id=launch_id,
            health=health,
        )


@dataclass(frozen=True)
class Node:
    """The constant part of an inventory: who, where, which GPUs."""

    hotkey_ss58: str
    node_id: str
    runtime: RuntimeName
    relay_port: int
    gpus: tuple[Gpu, ...]
    hourly_cost_usd_micros: int
    handshake: Handshake

    def inventory(
        self,
        *,
        leases: Sequence[Lease],
        launch_ids: Mapping[str, str],
        now_s: int,
        health_of: Callable[[str], GpuHealth | None] = lambda _: None,
        host: HostFacts | None = None,
    ) -> Inventory:
        """Return what is answered to a validator; ``launch_ids`` maps GPU uuids."""
        return Inventory(
            handshake=self.handshake,
            hotkey=self.hotkey_ss58,
            node_id=self.node_id,
            runtime=self.runtime,
            relay_port=self.relay_port,
            gpus=tuple(
                gpu.claim(launch_ids.get(gpu.uuid), health_of(gpu.uuid)) for gpu in self.gpus
            ),
            leases=tuple(leases),
            hourly_cost_usd_micros=self.hourly_cost_usd_micros,
            server_time_s=now_s,
            host=host,
        )


def stand_ins(hotkey_ss58: str, declared: Sequence[DeclaredGpus]) -> tuple[Gpu, ...]:
    """Return the declared GPUs; their uuids depend on the hotkey and stay the same."""
    gpus: list[Gpu] = []
    for entry in declared:
        for _ in range(entry.count):
            index = len(gpus)
            digest = hashlib.sha256(f"{hotkey_ss58}|{index}".encode()).hexdigest()
            vram = GPU_CLASSES[entry.gpu_class].vram_gb * _GIB
            gpus.append(Gpu(f"standin-{digest[:32]}", index, entry.gpu_class, vram, stand_in=True))
    return tuple(gpus)


def real_gpus(devices: Sequence[Device]) -> tuple[Gpu, ...]:
    """Return the devices that can be offered; the log names the others with their reason."""
    offers, left_out = sort_devices(tuple(devices))
    for entry in left_out:
        logger.bind(code=entry.reason, gpu=entry.device.uuid, name=entry.device.name).warning(
            "GPU was not offered"
        )
    return tuple(
        Gpu(
            uuid=offer.device.uuid,
            index=offer.device.index,
            gpu_class=offer.gpu_class,
            vram_bytes=offer.device.memory_bytes,
            stand_in=False,
        )
        for offer in offers
    )


def find_gpus(
    hotkey_ss58: str,
    declared: Sequence[DeclaredGpus],
    read: Callable[[], Sequence[Device]] = read_devices,
) -> tuple[Gpu, ...]:
    """Return the node's GPUs: the declared stand-ins, else what the driver shows.

    Raises:
        Unavailable: ``nvml_failed``.
    """
    if declared:
        return stand_ins(hotkey_ss58, declared)
    gpus = real_gpus(read())
    if not gpus:
        logger.bind(code="no_gpus").warning("node had no GPUs to offer")
    for gpu in gpus:
        logger.bind(gpu=gpu.uuid, gpu_class=gpu.gpu_class, vram_bytes=gpu.vram_bytes).info(
            "GPU was found"
        )
    return gpus


def node_id(hotkey_ss58: str) -> str:
    """Return the node's stable id; one miner process is one node."""
    return "node-" + hashlib.sha256(f"node|{hotkey_ss58}".encode()).hexdigest()[:16]


def software_version() -> str:
    """Return the version that handshakes carry."""
    try:
        return importlib.metadata.version("chutes-core")
    except importlib.metadata.PackageNotFoundError:
        return "0+checkout"
