"""What the NVIDIA driver says of a GPU: the few NVML calls that graval needs, through ctypes.

Where on its path: `cuda` adds these fields to what torch knows. NVML is the driver's own library
(libnvidia-ml.so.1), so nothing needs to be installed; where it is missing or a call fails, the
field stays empty: these are claims that no proof rests on.

Source of names and constants: NVIDIA's NVML API reference (nvml.h).
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graval.nvml import Library, PciInfo

_TEXT_BYTES = 96
_CLOCK_SM = 1  # NVML_CLOCK_SM
_LIBRARY = "libnvidia-ml.so.1"
_MOST_PROCESSES = 64
_MIB = 1 << 20
_UNKNOWN = (1 << 64) - 1  # NVML_VALUE_NOT_AVAILABLE


@dataclass(frozen=True)
class DriverView:
    """One GPU as its driver describes it; empty or 0 where it does not say."""

    driver: str = ""
    pci_bus_id: str = ""
    clock_mhz: int = 0
    power_limit_w: int = 0
    ecc: bool = False
    mig: bool = False


@dataclass(frozen=True)
class User:
    """A process that holds memory of a GPU; 0 bytes and no name where the driver does not say."""

    pid: int
    name: str
    memory_bytes: int

    def __str__(self) -> str:
        of = f", {self.memory_bytes // _MIB} MiB" if self.memory_bytes else ""
        return f"{self.name or 'a process'} (pid {self.pid}{of})"


class _ProcessInfo(ctypes.Structure):
    """nvmlProcessInfo_t of nvmlDeviceGetComputeRunningProcesses_v3."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


def describe(uuid: str, library: Library | None = None) -> DriverView:
    """What the driver says of the GPU with this UUID (as "GPU-...")."""
    with _opened(library) as opened:
        if opened is None:
            return DriverView()
        handle = _handle(opened, uuid)
        return DriverView(driver=_driver(opened)) if handle is None else _view(opened, handle)


def other_users(uuid: str, library: Library | None = None) -> tuple[User, ...]:
    """The other processes that hold memory of a GPU, those with the most first.

    In a container the driver may show the host's process ids, which have no name there.
    """
    with _opened(library) as opened:
        handle = None if opened is None else _handle(opened, uuid)
        if opened is None or handle is None:
            return ()
        found: dict[int, User] = {}
        for kind in ("Compute", "Graphics"):
            listed = getattr(opened, f"nvmlDeviceGet{kind}RunningProcesses_v3")
            entries, count = (_ProcessInfo * _MOST_PROCESSES)(), ctypes.c_uint(_MOST_PROCESSES)
            if listed(handle, ctypes.byref(count), entries) == 0:
                found |= {entry.pid: _user(entry) for entry in entries[: count.value]}
    found.pop(os.getpid(), None)
    return tuple(sorted(found.values(), key=lambda user: (-user.memory_bytes, user.pid)))


def _user(entry: _ProcessInfo) -> User:
    try:
        name = Path(f"/proc/{entry.pid}/comm").read_text().strip()
    except OSError:
        name = ""
    return User(entry.pid, name, 0 if entry.memory == _UNKNOWN else entry.memory)


@contextlib.contextmanager
def _opened(library: Library | None) -> Iterator[Library | None]:
    """NVML, started; None where there is none or it does not start."""
    if library is None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError:
            yield None
            return
    if library.nvmlInit_v2() != 0:
        yield None
        return
    try:
        yield library
    finally:
        library.nvmlShutdown()


def _handle(library: Library, uuid: str) -> ctypes.c_void_p | None:
    handle = ctypes.c_void_p()
    failed = library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != 0
    return None if failed else handle


def _view(library: Library, handle: ctypes.c_void_p) -> DriverView:
    ecc_now, ecc_next = ctypes.c_uint(), ctypes.c_uint()
    mig_now, mig_next = ctypes.c_uint(), ctypes.c_uint()
    library.nvmlDeviceGetEccMode(handle, ctypes.byref(ecc_now), ctypes.byref(ecc_next))
    library.nvmlDeviceGetMigMode(handle, ctypes.byref(mig_now), ctypes.byref(mig_next))
    clock, limit_mw, pci = ctypes.c_uint(), ctypes.c_uint(), PciInfo()
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


def _driver(library: Library) -> str:
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    if library.nvmlSystemGetDriverVersion(text, _TEXT_BYTES) != 0:
        return ""
    return text.value.decode("ascii", "replace")
