"""The host's real GPUs as the NVIDIA driver shows them: NVML through ctypes.

Path: app -> here -> inventory. NVML (libnvidia-ml.so.1) comes with the driver, so nothing needs to
be installed. Invariant: nothing here is proof; a device that graval's table does not know, a MIG
parent, or one that another process fills is left out, and the log says why.

Source of names and constants: NVIDIA's NVML API reference (nvml.h).
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from chutes_core.base.errors import Unavailable
from graval.gpus import identify
from graval.nvml import Library, PciInfo

_TEXT_BYTES = 96
_LIBRARY = "libnvidia-ml.so.1"
BUSY_PERCENT = 5
"""A device of whose memory more is in use at the start is not ours alone."""


@dataclass(frozen=True)
class Device:
    """One GPU as its driver describes it."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    used_bytes: int
    pci_bus_id: str = ""
    driver: str = ""
    temperature_c: int = 0
    power_limit_w: int = 0
    mig: bool = False


@dataclass(frozen=True)
class Offer:
    """A device that can be offered, with its class."""

    device: Device
    gpu_class: str


@dataclass(frozen=True)
class LeftOut:
    """A device that is not offered, and why: unknown_device, mig_enabled, device_busy."""

    device: Device
    reason: str


class _Memory(ctypes.Structure):
    """nvmlMemory_t; ``used`` holds what the driver keeps for itself, too."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class _MemoryV2(ctypes.Structure):
    """nvmlMemory_v2_t, which tells the driver's own part apart."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("total", ctypes.c_ulonglong),
        ("reserved", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


_VERSION_2 = ctypes.sizeof(_MemoryV2) | 2 << 24  # as nvml.h makes a structure's version


@dataclass(frozen=True)
class Memory:
    """A device's memory, and what programs have of it (bytes)."""

    total: int
    used: int


def memory_of(library: Library, handle: ctypes.c_void_p) -> Memory | None:
    """Return a device's memory; None where it does not answer.

    The driver's own part counts for nobody's: an idle H200 of driver 580 keeps 615 MiB. Drivers
    before series 510 do not tell it apart.
    """
    told = _MemoryV2(version=_VERSION_2)
    try:
        status = library.nvmlDeviceGetMemoryInfo_v2(handle, ctypes.byref(told))
    except AttributeError:  # the library has no such function
        status = -1
    if status == 0:
        return Memory(told.total, told.used)
    all_in_one = _Memory()
    if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(all_in_one)) != 0:
        return None
    return Memory(all_in_one.total, all_in_one.used)


def read_devices(library: Library | None = None) -> tuple[Device, ...]:
    """Return the host's GPUs in the driver's order; none where there is no driver.

    Raises:
        Unavailable: ``nvml_failed``: there is a driver, and it does not answer.
    """
    if library is None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError:
            return ()
    if (status := library.nvmlInit_v2()) != 0:
        raise Unavailable(
            "nvml_failed",
            f"the NVIDIA driver did not start NVML: status {status}",
            hint="nvidia-smi shows the same; reload the driver or reboot",
        )
    try:
        count = ctypes.c_uint()
        if (status := library.nvmlDeviceGetCount_v2(ctypes.byref(count))) != 0:
            raise Unavailable("nvml_failed", f"NVML counts no devices: status {status}")
        driver = _text(library.nvmlSystemGetDriverVersion)
        return tuple(_device(library, index, driver) for index in range(count.value))
    finally:
        library.nvmlShutdown()


def sort_devices(devices: tuple[Device, ...]) -> tuple[tuple[Offer, ...], tuple[LeftOut, ...]]:
    """Return what can be offered, and what cannot with the reason."""
    offers, left_out = [], []
    for device in devices:
        known = identify(device.name)
        if known is None:
            left_out.append(LeftOut(device, "unknown_device"))
        elif device.mig:
            left_out.append(LeftOut(device, "mig_enabled"))
        elif device.used_bytes * 100 > device.memory_bytes * BUSY_PERCENT:
            left_out.append(LeftOut(device, "device_busy"))
        else:
            offers.append(Offer(device, known.short_name))
    return tuple(offers), tuple(left_out)


def _device(library: Library, index: int, driver: str) -> Device:
    handle, pci = ctypes.c_void_p(), PciInfo()
    status = library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
    if status != 0:
        raise Unavailable(
            "nvml_failed",
            f"GPU {index} does not answer: status {status}",
            hint="it may have fallen off the bus: look at the kernel's log",
        )
    now, later = ctypes.c_uint(), ctypes.c_uint()
    heat, limit_mw = ctypes.c_uint(), ctypes.c_uint()
    memory = memory_of(library, handle) or Memory(0, 0)
    library.nvmlDeviceGetPciInfo_v3(handle, ctypes.byref(pci))
    library.nvmlDeviceGetMigMode(handle, ctypes.byref(now), ctypes.byref(later))
    library.nvmlDeviceGetTemperature(handle, 0, ctypes.byref(heat))  # NVML_TEMPERATURE_GPU
    library.nvmlDeviceGetEnforcedPowerLimit(handle, ctypes.byref(limit_mw))
    return Device(
        index=index,
        uuid=_text(library.nvmlDeviceGetUUID, handle),
        name=_text(library.nvmlDeviceGetName, handle),
        memory_bytes=memory.total,
        used_bytes=memory.used,
        pci_bus_id=pci.bus_id.decode("ascii", "replace"),
        driver=driver,
        temperature_c=heat.value,
        power_limit_w=limit_mw.value // 1000,
        mig=now.value == 1,
    )


def _text(function: Callable[..., int], *arguments: object) -> str:
    buffer = ctypes.create_string_buffer(_TEXT_BYTES)
    if function(*arguments, buffer, _TEXT_BYTES) != 0:
        return ""
    return buffer.value.decode("ascii", "replace")
