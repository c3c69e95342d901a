"""Real GPUs through NVML: what is offered, what is left out, and why."""

import ctypes

import pytest

from chutes_core.base.errors import Unavailable
from chutes_core.miner.gpus import Device, read_devices, sort_devices
from chutes_core.miner.inventory import find_gpus
from chutes_core.miner.settings import parse_declared

H100 = Device(0, "GPU-a", "NVIDIA H100 80GB HBM3", 81559 << 20, 1 << 20)


class Nvml:
    """Answers like the driver's library, with one H100."""

    def __init__(self, *, init=0, handle=0):
        self.init, self.handle, self.closed = init, handle, 0

    def __getattr__(self, name):
        def call(*arguments):
            if name == "nvmlInit_v2":
                return self.init
            if name == "nvmlShutdown":
                self.closed += 1
                return 0
            if name == "nvmlDeviceGetHandleByIndex_v2":
                return self.handle
            target = arguments[-1]._obj if hasattr(arguments[-1], "_obj") else None
            if name == "nvmlDeviceGetCount_v2":
                target.value = 1
            elif name == "nvmlDeviceGetMemoryInfo_v2":
                raise AttributeError(name)  # as ctypes does where a library lacks a function
            elif name == "nvmlDeviceGetMemoryInfo":
                target.total, target.used = 81559 << 20, 3 << 20
            elif name == "nvmlDeviceGetPciInfo_v3":
                target.bus_id = b"00000000:65:00.0"
            elif name == "nvmlDeviceGetMigMode":
                return 3  # NVML_ERROR_NOT_SUPPORTED
            elif name == "nvmlDeviceGetEnforcedPowerLimit":
                target.value = 700_000
            elif name in ("nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlSystemGetDriverVersion"):
                text = {"UUID": b"GPU-1", "Name": b"NVIDIA H100 80GB HBM3", "sion": b"580.1"}
                buffer, size = arguments[-2:]
                value = next(v for k, v in text.items() if name.endswith(k))
                ctypes.memmove(buffer, value + b"\0", min(size, len(value) + 1))
            return 0

        return call


def test_a_device_is_read_with_its_facts_and_the_library_is_closed():
    """UUID, name, memory, PCI id, driver and power limit come from the driver."""
    library = Nvml()
    (device,) = read_devices(library)
    assert (device.uuid, device.name) == ("GPU-1", "NVIDIA H100 80GB HBM3")
    assert device.memory_bytes == 81559 << 20
    assert device.pci_bus_id == "00000000:65:00.0"
    assert (device.driver, device.power_limit_w, device.mig) == ("580.1", 700, False)
    assert library.closed == 1


@pytest.mark.parametrize("broken", [{"init": 9}, {"handle": 15}])
def test_a_driver_that_does_not_answer_is_a_typed_error(broken):
    """A host with a broken driver says so; it does not silently offer fewer GPUs."""
    with pytest.raises(Unavailable) as caught:
        read_devices(Nvml(**broken))
    assert caught.value.code == "nvml_failed"


def test_a_known_idle_device_is_offered_by_its_class():
    """The class comes from graval's table."""
    offers, left_out = sort_devices((H100,))
    assert [offer.gpu_class for offer in offers] == ["h100_sxm"]
    assert left_out == ()


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (Device(0, "GPU-a", "NVIDIA GeForce GTX 1080", 8 << 30, 0), "unknown_device"),
        (Device(0, "GPU-a", H100.name, 80 << 30, 0, mig=True), "mig_enabled"),
        (Device(0, "GPU-a", H100.name, 80 << 30, 8 << 30), "device_busy"),
    ],
)
def test_what_cannot_be_attested_is_left_out_with_its_reason(device, reason):
    """Unknown devices, MIG parents, and devices that somebody else fills."""
    offers, left_out = sort_devices((device,))
    assert offers == ()
    assert [entry.reason for entry in left_out] == [reason]


def test_declared_stand_ins_win_over_real_devices():
    """A devnet's declared GPUs are taken, and the driver is not even asked."""

    def read():
        raise AssertionError("the driver was asked")

    (gpu,) = find_gpus("5Miner", parse_declared("h200:1"), read)
    assert gpu.stand_in
    assert gpu.gpu_class == "h200"


def test_without_declared_ones_the_real_devices_are_the_nodes():
    """Real GPUs are no stand-ins and keep their UUID."""
    (gpu,) = find_gpus("5Miner", (), lambda: (H100,))
    assert (gpu.uuid, gpu.gpu_class, gpu.stand_in) == ("GPU-a", "h100_sxm", False)
