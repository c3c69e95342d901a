"""What the NVIDIA driver says of a GPU: the few NVML calls that graval needs, through ctypes.

Where on its path: `cuda` adds these fields to what torch knows. NVML is the driver's own library
(libnvidia-ml.so.1), so nothing needs to be installed; where it is missing or a call fails, the
field stays empty: these are claims that no proof rests on.

Source of names and constants: NVIDIA's NVML API reference (nvml.h).
"""

import ctypes
from dataclasses import dataclass

_TEXT_BYTES = 96
_CLOCK_SM = 1  # NVML_CLOCK_SM


@dataclass(frozen=True)
class DriverView:
    """One GPU as its driver describes it; empty or 0 where it does not say."""

    driver: str = ""
    pci_bus_id: str = ""
    clock_mhz: int = 0
    power_limit_w: int = 0
    ecc: bool = False
    mig: bool = False


class _PciInfo(ctypes.Structure):
    """nvmlPciInfo_t of nvmlDeviceGetPciInfo_v3."""

    _fields_ = (
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pci_device_id", ctypes.c_uint),
        ("pci_sub_system_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    )


def describe(uuid: str) -> DriverView:
    """What the driver says of the GPU with this UUID (as "GPU-...")."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return DriverView()
    if library.nvmlInit_v2() != 0:
        return DriverView()
    try:
        handle = ctypes.c_void_p()
        if library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != 0:
            return DriverView(driver=_driver(library))
        return _view(library, handle)
    finally:
        library.nvmlShutdown()


def _view(library: ctypes.CDLL, handle: ctypes.c_void_p) -> DriverView:
    ecc_now, ecc_next = ctypes.c_uint(), ctypes.c_uint()
    mig_now, mig_next = ctypes.c_uint(), ctypes.c_uint()
    library.nvmlDeviceGetEccMode(handle, ctypes.byref(ecc_now), ctypes.byref(ecc_next))
    library.nvmlDeviceGetMigMode(handle, ctypes.byref(mig_now), ctypes.byref(mig_next))
    clock, limit_mw, pci = ctypes.c_uint(), ctypes.c_uint(), _PciInfo()
    library.nvmlDeviceGetMaxClockInfo(handle, _CLOCK_SM, ctypes.byref(clock))
    library.nvmlDeviceGetEnforcedPowerLimit(handle, ctypes.byref(limit_mw))
    library.nvmlDeviceGetPciInfo_v3(handle, ctypes.byref(pci))
    return DriverView(
        driver=_driver(library),
        pci_bus_id=pci.bus_id.decode("ascii", "replace"),
        clock_mhz=clock.value,
        power_limit_w=limit_mw.value // 1000,
        ecc=ecc_now.value == 1,
        mig=mig_now.value == 1,
    )


def _driver(library: ctypes.CDLL) -> str:
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    if library.nvmlSystemGetDriverVersion(text, _TEXT_BYTES) != 0:
        return ""
    return text.value.decode("ascii", "replace")
