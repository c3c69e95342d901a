"""A GPU's health from recorded answers of the driver and lines of the kernel."""

import ctypes

import pytest

from chutes_core.miner.health import (
    FOREIGN_BYTES,
    HealthWatch,
    KernelLog,
    Vitals,
    is_at,
    judge,
    parse_xids,
    read_vitals,
)
from chutes_core.miner.hostfacts import TransferMeter, host_facts
from chutes_core.miner.inventory import Gpu

GPU = Gpu("GPU-1", 0, "h100_sxm", 81559 << 20, stand_in=False)
STAND_IN = Gpu("standin-1", 0, "h100_sxm", 80 << 30, stand_in=True)
# As a driver of series 580 writes them to the kernel's log.
KERNEL = (
    "4,1187,5123456,-;NVRM: Xid (PCI:0000:65:00): 13, pid=4242, name=python, Graphics Exception",
    "6,1188,5123457,-;usb 1-1: new high-speed USB device",
    "3,1189,5123999,-;NVRM: Xid (PCI:0000:65:00): 79, pid='<unknown>', GPU has fallen off the bus.",
    "3,1190,5124000,-;NVRM: Xid (PCI:0000:B3:00): 48, pid=1, DBE (double bit error) ECC Error",
)


MEMORY = ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo")


class Nvml:
    """Answers like the driver's library for one H100; ``fails`` names calls that are refused."""

    def __init__(self, *, used=3 << 20, ecc=0, bits=0, processes=0, fails=(), reserved=615 << 20):
        self.used, self.ecc, self.bits, self.processes = used, ecc, bits, processes
        self.fails, self.open, self.reserved = fails, 0, reserved

    def tell_memory(self, name, told):
        if name == MEMORY[1]:
            told.used = self.used + self.reserved
            return 0
        if told.version != 0x02000028:
            return 25  # NVML_ERROR_ARGUMENT_VERSION_MISMATCH
        told.used, told.reserved = self.used, self.reserved
        return 0

    def __getattr__(self, name):
        def call(*arguments):
            if name in self.fails:
                return 15  # NVML_ERROR_GPU_IS_LOST
            if name == "nvmlInit_v2":
                self.open += 1
            elif name == "nvmlShutdown":
                self.open -= 1
            elif name in MEMORY:
                return self.tell_memory(name, arguments[1]._obj)
            elif name == "nvmlDeviceGetTemperature":
                arguments[2]._obj.value = 41
            elif name == "nvmlDeviceGetTotalEccErrors":
                assert arguments[1:3] == (1, 0)  # uncorrected, since the last reset
                arguments[3]._obj.value = self.ecc
            elif name == "nvmlDeviceGetCurrentClocksThrottleReasons":
                arguments[1]._obj.value = self.bits
            elif name == "nvmlDeviceGetComputeRunningProcesses_v3":
                arguments[1]._obj.value = self.processes
            elif name == "nvmlDeviceGetPciInfo_v3":
                ctypes.memmove(ctypes.byref(arguments[1]._obj, 36), b"00000000:65:00.0", 16)
            return 0

        return call


def test_vitals_are_read_and_the_library_is_closed():
    """Memory, heat, errors, throttling, processes and the PCI address come from the driver."""
    library = Nvml(used=5 << 30, ecc=2, bits=0x48, processes=3)
    (now,) = read_vitals([GPU, STAND_IN], library).values()
    assert now == Vitals(
        pci_bus_id="00000000:65:00.0",
        used_bytes=5 << 30,
        temperature_c=41,
        ecc_uncorrected=2,
        throttled=("hardware_slowdown", "thermal_hardware"),
        processes=3,
    )
    assert library.open == 0


def test_a_stand_in_has_no_vitals():
    """Nobody asks a driver about a declared GPU."""
    assert read_vitals([STAND_IN], Nvml(fails=("nvmlInit_v2",))) == {}


def test_what_the_driver_keeps_for_itself_is_no_foreign_memory():
    """An idle H200 of driver 580 shows 615 MiB in use that are its driver's: it may earn."""
    (now,) = read_vitals([GPU], Nvml(used=0)).values()
    assert now.used_bytes == 0
    assert judge(now, [], idle=True) == ()


def test_an_old_driver_tells_all_in_one():
    """Where the driver's part is not told apart, the sum is what there is."""
    (now,) = read_vitals([GPU], Nvml(used=1 << 20, reserved=2 << 20, fails=MEMORY[:1])).values()
    assert now.used_bytes == 3 << 20


@pytest.mark.parametrize(
    "calls", [("nvmlInit_v2",), ("nvmlDeviceGetHandleByUUID",), MEMORY], ids=lambda c: c[0]
)
def test_a_gpu_that_does_not_answer_is_lost(calls):
    """A driver or device that fails is a problem of the GPU, not an error of the miner."""
    (now,) = read_vitals([GPU], Nvml(fails=calls)).values()
    assert judge(now, [], idle=True) == ("gpu_lost",)


def test_what_a_device_does_not_have_is_no_finding():
    """Without ECC, throttle reasons and process lists a GPU is well."""
    fails = (
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        "nvmlDeviceGetComputeRunningProcesses_v3",
    )
    (now,) = read_vitals([GPU], Nvml(ecc=9, bits=0xFF, fails=fails)).values()
    assert judge(now, [], idle=True) == ()


def test_kernel_messages_belong_to_their_device():
    """Each Xid has its PCI address, and only the device at that address has the problem."""
    found = parse_xids(KERNEL)
    assert found == [("0000:65:00", 13), ("0000:65:00", 79), ("0000:b3:00", 48)]
    assert [xid for at, xid in found if is_at("00000000:65:00.0", at)] == [13, 79]
    assert not is_at("", "0000:65:00")


def test_a_faulty_program_does_not_make_a_gpu_unwell():
    """Xid 13 is told; Xid 79 takes the GPU out."""
    messages = [[("0000:65:00", 13)], [("0000:65:00", 79)], []]
    watch = HealthWatch([GPU], lambda gpus: read_vitals(gpus, Nvml()), lambda: messages.pop(0))
    watch.look(frozenset())
    assert watch.of(GPU.uuid).problems == ("xid",)
    assert watch.unwell() == frozenset()
    watch.look(frozenset())
    assert watch.unwell() == {GPU.uuid}
    watch.look(frozenset())  # a message counts for the whole life of the miner
    assert watch.of(GPU.uuid).xids == (13, 79)


def test_memory_in_use_without_an_instance_is_somebody_elses():
    """While something of ours runs its memory is expected; once idle it must be given back."""
    library = Nvml(used=FOREIGN_BYTES + 1, processes=1)
    watch = HealthWatch([GPU], lambda gpus: read_vitals(gpus, library), list)
    watch.look(frozenset({GPU.uuid}))
    assert watch.unwell() == frozenset()
    watch.look(frozenset())
    assert watch.of(GPU.uuid).problems == ("foreign_memory",)
    assert watch.unwell() == {GPU.uuid}
    library.used = 0
    watch.look(frozenset())
    assert watch.unwell() == frozenset()


def test_a_log_that_may_not_be_read_is_no_finding(tmp_path):
    """Without the kernel's log there are no Xids, and no error."""
    assert KernelLog(str(tmp_path / "missing")).xids() == []


def test_a_log_is_read_on_from_where_it_was(tmp_path):
    """Each message is told once."""
    file = tmp_path / "kmsg"
    file.write_text("\n".join(KERNEL[:1]))
    log = KernelLog(str(file))
    assert log.xids() == [("0000:65:00", 13)]
    assert log.xids() == []
    log.close()
    assert log.xids() == []


def test_bandwidth_is_measured_or_unknown(tmp_path):
    """Small transfers say nothing; the rate is that of the last ones together."""
    meter = TransferMeter()
    meter.add(1000, 0.001)
    assert host_facts(tmp_path, meter).measured_bytes_per_s is None
    meter.add(10 << 20, 1.0)
    meter.add(10 << 20, 3.0)
    facts = host_facts(tmp_path, meter)
    assert facts.measured_bytes_per_s == 5 << 20
    assert 0 < facts.memory_free_bytes <= facts.memory_bytes
    assert 0 < facts.disk_free_bytes <= facts.disk_bytes
