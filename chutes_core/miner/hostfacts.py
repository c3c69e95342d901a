"""What the host has: memory, disk, CPUs, and the bandwidth that was measured on real transfers.

Path: transfers of images -> `TransferMeter` -> inventory, doctor, status. Invariant: bandwidth is
never a claim: without a transfer of at least `LEAST_BYTES` it is unknown.
"""

import os
import platform
import shutil
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from chutes_core.wire.control import HostFacts

LEAST_BYTES = 1024 * 1024
_KEPT = 16


@dataclass
class TransferMeter:
    """Remembers the last transfers: bytes and seconds of each."""

    _last: "deque[tuple[int, float]]" = field(default_factory=lambda: deque(maxlen=_KEPT))

    def add(self, size_bytes: int, seconds: float) -> None:
        """Count a transfer; one that is too small says nothing."""
        if size_bytes >= LEAST_BYTES and seconds > 0:
            self._last.append((size_bytes, seconds))

    def bytes_per_s(self) -> int | None:
        """Return the rate over the last transfers together, None before the first."""
        if not self._last:
            return None
        return round(sum(n for n, _ in self._last) / sum(s for _, s in self._last))


def host_facts(data: Path, meter: TransferMeter) -> HostFacts:
    """Return the host's facts now."""
    disk = shutil.disk_usage(data)
    page = os.sysconf("SC_PAGE_SIZE")
    return HostFacts(
        cpus=os.cpu_count() or 1,
        architecture=platform.machine(),
        memory_bytes=page * os.sysconf("SC_PHYS_PAGES"),
        memory_free_bytes=_available() or page * os.sysconf("SC_AVPHYS_PAGES"),
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
        measured_bytes_per_s=meter.bytes_per_s(),
    )


def _available() -> int:
    """Return what the kernel says could be given to programs; 0 where it says nothing."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return 0
    return 0
