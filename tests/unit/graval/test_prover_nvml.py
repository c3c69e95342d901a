"""What the driver says of a GPU: its state, and who else holds its memory."""

import ctypes
import os

from graval.prover.nvml import DriverView, User, describe, other_users

GONE = 1 << 22  # above any process id of this kernel


class Nvml:
    """Answers like the driver's library for one GPU with MIG and ECC on and three processes."""

    def __init__(self, *, init=0, known=True, processes=()):
        self.init, self.known, self.processes, self.closed = init, known, processes, 0

    def nvmlInit_v2(self):
        return self.init

    def nvmlShutdown(self):
        self.closed += 1
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):
        return 0 if self.known and uuid == b"GPU-1" else 6  # NVML_ERROR_NOT_FOUND

    def nvmlDeviceGetMaxClockInfo(self, handle, kind, clock):
        clock._obj.value = 1980
        return 0

    def nvmlDeviceGetEnforcedPowerLimit(self, handle, limit):
        limit._obj.value = 700_000
        return 0

    def nvmlDeviceGetPciInfo_v3(self, handle, pci):
        pci._obj.bus_id = b"00000000:65:00.0"
        return 0

    def nvmlDeviceGetMigMode(self, handle, now, later):
        now._obj.value = 1
        return 0

    def nvmlDeviceGetEccMode(self, handle, now, later):
        now._obj.value = 1
        return 0

    def nvmlSystemGetDriverVersion(self, buffer, size):
        ctypes.memmove(buffer, b"580.159.04\0", 11)
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle, count, entries):
        assert count._obj.value >= len(self.processes)
        for entry, (pid, memory) in zip(entries, self.processes, strict=False):
            entry.pid, entry.memory = pid, memory
        count._obj.value = len(self.processes)
        return 0

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle, count, entries):
        return 3  # NVML_ERROR_NOT_SUPPORTED


def test_mig_ecc_clocks_and_power_are_read():
    """Each field comes from the driver, and the library is closed again."""
    library = Nvml()
    assert describe("GPU-1", library) == DriverView(
        driver="580.159.04", pci_bus_id="00000000:65:00.0", clock_mhz=1980, power_limit_w=700,
        ecc=True, mig=True,
    )  # fmt: skip
    assert library.closed == 1


def test_what_the_driver_does_not_say_stays_empty():
    """No driver, one that does not start, a UUID that it does not know."""
    assert describe("GPU-1", Nvml(init=9)) == DriverView()
    assert describe("GPU-2", Nvml()) == DriverView(driver="580.159.04")
    assert describe("GPU-1").pci_bus_id == ""  # no driver here, or no such GPU
    assert other_users("GPU-1", Nvml(known=False)) == ()


def test_who_else_holds_memory_is_named():
    """Those with the most first, with the kernel's name of the process; our own is not named."""
    parent = os.getppid()
    library = Nvml(processes=[(os.getpid(), 5 << 20), (GONE, (1 << 64) - 1), (parent, 30 << 30)])
    first, second = other_users("GPU-1", library)
    assert (first.pid, first.memory_bytes) == (parent, 30 << 30)
    assert f"(pid {parent}, 30720 MiB)" in str(first)
    assert first.name
    assert second == User(GONE, "", 0)
    assert str(second) == f"a process (pid {GONE})"
    assert library.closed == 1
