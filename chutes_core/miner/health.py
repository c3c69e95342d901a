"""How well each GPU is: memory errors, clocks held back, Xid messages, foreign users of its memory.

Path: a loop of app.py -> `HealthWatch.look` -> scheduler (GPUs that should run nothing), inventory
and the operator's status. Reads NVML and the kernel's log; both are seams, so that every finding is
tested on recorded answers. Invariant: what cannot be read is no finding; a GPU counts as unwell
only for what was seen on it.

Sources: NVIDIA's NVML API reference (nvml.h) for calls and bits; NVIDIA's Xid catalogue for which
messages mean a broken device and which a faulty program (2026-11).
"""

import ctypes
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from loguru import logger

from chutes_core.miner.gpus import memory_of
from chutes_core.miner.inventory import Gpu
from chutes_core.wire.control import GpuHealth
from graval.nvml import Library, PciInfo

FATAL_XIDS = frozenset({48, 62, 64, 74, 79, 92, 95, 119, 120, 140, 143})
"""Double-bit errors, a GPU off the bus, NVLink and GSP failures: nothing should run there."""
UNWELL = frozenset({"gpu_lost", "ecc_uncorrected", "xid_fatal", "foreign_memory"})
"""Problems for which a GPU runs nothing; the others are told only."""
FOREIGN_BYTES = 512 * 1024 * 1024
"""Used memory of a GPU without an instance above this is somebody else's (or was never freed)."""
_THROTTLES = {
    0x04: "power_cap",
    0x08: "hardware_slowdown",
    0x20: "thermal_software",
    0x40: "thermal_hardware",
    0x80: "power_brake",
}
_TOLD_THROTTLES = frozenset({"hardware_slowdown", "thermal_hardware", "power_brake"})
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9A-Fa-f:.]+)\): (\d+)")
_KMSG = "/dev/kmsg"
_KMSG_BYTES = 8192
_MOST_LINES = 20_000
_MAX_PROCESSES = 64
_KEPT_XIDS = 16


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


@dataclass(frozen=True)
class Vitals:
    """What the driver says of one GPU now; ``lost`` where it does not answer."""

    lost: bool = False
    pci_bus_id: str = ""
    used_bytes: int = 0
    temperature_c: int = 0
    ecc_uncorrected: int = 0
    throttled: tuple[str, ...] = ()
    processes: int = 0


ReadVitals = Callable[[Sequence[Gpu]], Mapping[str, Vitals]]
ReadXids = Callable[[], Sequence[tuple[str, int]]]


def read_vitals(gpus: Sequence[Gpu], library: Library | None = None) -> dict[str, Vitals]:
    """Return GPU uuid -> vitals; nothing of stand-ins, and nothing where there is no driver."""
    real = [gpu for gpu in gpus if not gpu.stand_in]
    if not real:
        return {}
    if library is None:
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return {}
    if library.nvmlInit_v2() != 0:
        return {gpu.uuid: Vitals(lost=True) for gpu in real}
    try:
        return {gpu.uuid: _vitals(library, gpu.uuid) for gpu in real}
    finally:
        library.nvmlShutdown()


def judge(vitals: Vitals, xids: Iterable[int], *, idle: bool) -> tuple[str, ...]:
    """Return the problems of one GPU, the gravest first.

    >>> judge(Vitals(used_bytes=3 << 30), [], idle=True)
    ('foreign_memory',)
    >>> judge(Vitals(used_bytes=3 << 30), [], idle=False)
    ()
    """
    seen = set(xids)
    found = {
        "gpu_lost": vitals.lost,
        "xid_fatal": bool(seen & FATAL_XIDS),
        "ecc_uncorrected": vitals.ecc_uncorrected > 0,
        "foreign_memory": idle and vitals.used_bytes > FOREIGN_BYTES,
        "throttled": bool(_TOLD_THROTTLES & set(vitals.throttled)),
        "xid": bool(seen - FATAL_XIDS),
    }
    return tuple(name for name, on in found.items() if on)


def parse_xids(lines: Iterable[str]) -> list[tuple[str, int]]:
    """Return (PCI address, Xid) of every such message of the kernel.

    >>> parse_xids(["NVRM: Xid (PCI:0000:65:00): 79, pid=1234, GPU has fallen off the bus."])
    [('0000:65:00', 79)]
    """
    found = (_XID.search(line) for line in lines)
    return [(match[1].lower(), int(match[2])) for match in found if match]


def is_at(pci_bus_id: str, message_address: str) -> bool:
    """Tell whether a message's PCI address names this device.

    >>> is_at("00000000:65:00.0", "0000:65:00")
    True
    """
    own = pci_bus_id.lower().split(".")[0][-10:]
    return bool(own) and own == message_address.split(".")[0][-10:]


class KernelLog:
    """Reads new messages of the kernel's log since boot; nothing where this user may not."""

    def __init__(self, path: str = _KMSG) -> None:
        try:
            self._file: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            self._file = None
            logger.bind(code="kernel_log_unreadable").info(
                "Xid messages are not seen: {}", error.strerror
            )

    def xids(self) -> list[tuple[str, int]]:
        """Return the Xid messages that came since the last call."""
        return parse_xids(self._lines())

    def close(self) -> None:
        """Close the log."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lines(self) -> Iterable[str]:
        for _ in range(_MOST_LINES if self._file is not None else 0):
            assert self._file is not None
            try:
                record = os.read(self._file, _KMSG_BYTES)
            except BrokenPipeError:  # messages were overwritten before they were read
                continue
            except OSError:
                return
            if not record:
                return
            yield record.decode(errors="replace")


class HealthWatch:
    """The last known health of each GPU."""

    def __init__(self, gpus: Sequence[Gpu], read: ReadVitals, xids: ReadXids) -> None:
        self._gpus = tuple(gpus)
        self._read = read
        self._xids = xids
        self._messages: list[tuple[str, int]] = []
        self._health: dict[str, GpuHealth] = {}

    def look(self, busy: frozenset[str]) -> None:
        """Read anew; ``busy`` GPUs run something of ours. Sync: called in a thread."""
        self._messages.extend(self._xids())
        vitals = self._read(self._gpus)
        for uuid, now in vitals.items():
            own = [xid for address, xid in self._messages if is_at(now.pci_bus_id, address)]
            health = _health(now, own, judge(now, own, idle=uuid not in busy))
            before = self._health.get(uuid)
            if before is None or before.problems != health.problems:
                _say(uuid, before, health)
            self._health[uuid] = health

    def of(self, uuid: str) -> GpuHealth | None:
        """Return a GPU's health; None for one that was not looked at (a stand-in)."""
        return self._health.get(uuid)

    def unwell(self) -> frozenset[str]:
        """Return the GPUs that should run nothing."""
        return frozenset(u for u, health in self._health.items() if UNWELL & set(health.problems))


def _health(vitals: Vitals, xids: Sequence[int], problems: tuple[str, ...]) -> GpuHealth:
    return GpuHealth(
        problems=problems,
        temperature_c=vitals.temperature_c,
        used_bytes=vitals.used_bytes,
        ecc_uncorrected=vitals.ecc_uncorrected,
        throttled=vitals.throttled,
        xids=tuple(xids[-_KEPT_XIDS:]),
        processes=vitals.processes,
    )


def _say(uuid: str, before: GpuHealth | None, now: GpuHealth) -> None:
    log = logger.bind(gpu=uuid, problems=now.problems, used_bytes=now.used_bytes)
    if now.problems:
        log.bind(code=now.problems[0]).warning("GPU has a problem")
    elif before is not None:
        log.info("GPU is well again")


def _vitals(library: Library, uuid: str) -> Vitals:
    handle = ctypes.c_void_p()
    if library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != 0:
        return Vitals(lost=True)
    heat = ctypes.c_uint()
    errors, throttled = ctypes.c_ulonglong(), ctypes.c_ulonglong()
    memory = memory_of(library, handle)
    if memory is None:
        return Vitals(lost=True)
    library.nvmlDeviceGetTemperature(handle, 0, ctypes.byref(heat))
    # NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC: since the last reset
    if library.nvmlDeviceGetTotalEccErrors(handle, 1, 0, ctypes.byref(errors)) != 0:
        errors.value = 0  # this device has no ECC
    if library.nvmlDeviceGetCurrentClocksThrottleReasons(handle, ctypes.byref(throttled)) != 0:
        throttled.value = 0
    return Vitals(
        pci_bus_id=_pci(library, handle),
        used_bytes=memory.used,
        temperature_c=heat.value,
        ecc_uncorrected=errors.value,
        throttled=tuple(name for bit, name in _THROTTLES.items() if throttled.value & bit),
        processes=_processes(library, handle),
    )


def _processes(library: Library, handle: ctypes.c_void_p) -> int:
    count = ctypes.c_uint(_MAX_PROCESSES)
    found = (_Process * _MAX_PROCESSES)()
    status = library.nvmlDeviceGetComputeRunningProcesses_v3(handle, ctypes.byref(count), found)
    return count.value if status == 0 else 0


def _pci(library: Library, handle: ctypes.c_void_p) -> str:
    info = PciInfo()
    if library.nvmlDeviceGetPciInfo_v3(handle, ctypes.byref(info)) != 0:
        return ""
    return str(info.bus_id.decode("ascii", "replace"))
