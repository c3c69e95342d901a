"""What both CUDA backends share: torch, the device's description, the memory of the fill.

torch is imported here, when a CUDA backend is opened and not before; where it or the device is
missing, `BackendUnavailable` says so. Invariant: at most one fill is held, and the memory it needs
is the rows plus a workspace of at most `WORKSPACE_BYTES`.
"""

from typing import Any

from graval.challenge import DeviceInfo
from graval.errors import BackendUnavailable, NotEnoughMemory, ProtocolViolation
from graval.gpus import identify
from graval.profile import ROW_BYTES, Profile
from graval.prover.backend import Choice
from graval.prover.nvml import describe, other_users

try:
    import torch
except ImportError as error:
    raise BackendUnavailable(
        "torch_missing",
        f"the CUDA backends need torch: {error}",
        hint="use the prover bundle's Python, or declare a stand-in on a devnet",
    ) from error

__all__ = ["WORKSPACE_BYTES", "FillMemory", "device_info", "require_device", "torch"]

WORKSPACE_BYTES = 512 << 20
IDLE_PERCENT = 95
"""A device with so much of its memory free is taken to be ours alone."""


def require_device(choice: Choice) -> "torch.device":
    """The CUDA device of a choice.

    Raises:
        BackendUnavailable: no CUDA, or no such index.
    """
    if not torch.cuda.is_available():
        raise BackendUnavailable("cuda_missing", "torch finds no usable CUDA device here")
    count = torch.cuda.device_count()
    if not 0 <= choice.gpu < count:
        raise BackendUnavailable("no_such_gpu", f"GPU {choice.gpu} of {count} does not exist")
    return torch.device("cuda", choice.gpu)


def device_info(device: "torch.device", backend: str) -> DeviceInfo:
    """The device as torch and the driver describe it."""
    properties = torch.cuda.get_device_properties(device)
    uuid = f"GPU-{properties.uuid}"
    known = identify(properties.name)
    view = describe(uuid)
    return DeviceInfo(
        short_name=known.short_name if known else "",
        name=properties.name,
        uuid=uuid,
        memory_bytes=properties.total_memory,
        sm_count=properties.multi_processor_count,
        compute_capability=f"{properties.major}.{properties.minor}",
        clock_mhz=view.clock_mhz,
        power_limit_w=view.power_limit_w,
        pci_bus_id=view.pci_bus_id,
        driver=view.driver,
        mig=view.mig or " MIG " in properties.name,
        ecc=view.ecc,
        backend=backend,
    )


class FillMemory:
    """The device memory that holds a fill: one int8 tensor, kept while it is large enough."""

    def __init__(self, device: "torch.device") -> None:
        self._device = device
        self._rows: Any = None  # (capacity, N) int8
        self._used = 0

    def rows_for(self, profile: Profile, memory_bytes: int) -> int:
        """The profile's rows where they fit beside the workspace now, else what fits."""
        wanted = profile.rows(memory_bytes)
        if self._device.type != "cuda":
            return wanted
        free_bytes, _ = torch.cuda.mem_get_info(self._device)
        held_bytes = 0 if self._rows is None else self._rows.numel()
        return int(max(0, min(wanted, (free_bytes + held_bytes - WORKSPACE_BYTES) // ROW_BYTES)))

    def take(self, rows: int) -> Any:
        """An int8 tensor (rows, N) on the device.

        Raises:
            NotEnoughMemory: the device cannot hold it, with what is free.
        """
        self._used = 0
        if self._rows is None or len(self._rows) < rows:
            self.release()
            try:
                self._rows = torch.empty((rows, ROW_BYTES), dtype=torch.int8, device=self._device)
            except torch.OutOfMemoryError as error:
                raise self.exhausted(rows) from error
        self._used = rows
        return self._rows[:rows]

    def reserve(self, rows: int, memory_bytes: int) -> None:
        """Take the memory of a fill ahead of it, where nobody else holds any of the device's.

        Beside a loaded model nothing is taken: the next fill takes only what it needs.
        """
        if self._device.type != "cuda" or self._rows is not None:
            return
        free_bytes, _ = torch.cuda.mem_get_info(self._device)
        if free_bytes * 100 >= memory_bytes * IDLE_PERCENT:
            self.take(rows)
            self._used = 0

    def exhausted(self, rows: int) -> NotEnoughMemory:
        """The error that names what was asked, what is free, and who holds the rest."""
        free_bytes, total_bytes = torch.cuda.mem_get_info(self._device)
        users = other_users(f"GPU-{torch.cuda.get_device_properties(self._device).uuid}")
        return NotEnoughMemory(
            "device_memory",
            f"{rows * ROW_BYTES} bytes were asked of a device with {free_bytes} of "
            f"{total_bytes} bytes free",
            hint="its memory is held by " + ", ".join(map(str, users))
            if users
            else "the driver names no other process on this GPU",
        )

    def filled(self) -> Any:
        """The rows that are filled: int8 (rows, N).

        Raises:
            ProtocolViolation: nothing is filled.
        """
        if not self._used:
            raise ProtocolViolation("not_filled", "there is no fill to scan")
        return self._rows[: self._used]

    def release(self) -> None:
        """Give the memory back to the device."""
        self._rows, self._used = None, 0
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
