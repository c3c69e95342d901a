"""CUDA backends against the numpy verifier; the torch one also on a CPU, where torch is installed.

Run on a GPU host with `pytest tests/gpu -m gpu`. Nothing here installs torch.
"""

import pytest

from graval import golden
from graval.challenge import DeviceInfo
from graval.errors import BackendUnavailable
from graval.params import PROFILES
from graval.prover.backend import Choice, open_backend

torch = pytest.importorskip("torch", reason="torch is not installed here")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_torch_on_a_cpu_equals_numpy():
    """The torch arithmetic is exact: T = 2, 8 and 16 give the CPU verifier's answers."""
    from graval.prover.torch_backend import TorchBackend

    info = DeviceInfo("h100_sxm", "cpu", "cpu", 1 << 30, 1, "9.0", backend="torch")
    outcomes = golden.check_backend("torch", TorchBackend(torch.device("cpu"), info), rows=300)
    assert [o for o in outcomes if not o.ok] == []


def test_out_of_memory_names_who_holds_it(monkeypatch):
    """The error says what was asked, what is free, and the other processes on the GPU."""
    from graval.prover import cuda, nvml

    properties = type("Properties", (), {"uuid": "1"})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (7, 99))
    users = {"GPU-1": (nvml.User(12, "trainer", 30 << 30), nvml.User(13, "", 0))}
    monkeypatch.setattr(cuda, "other_users", lambda uuid: users[uuid])
    error = cuda.FillMemory(torch.device("cpu")).exhausted(2)
    assert "2048 bytes were asked of a device with 7 of 99 bytes free" in error.message
    assert error.hint == "its memory is held by trainer (pid 12, 30720 MiB), a process (pid 13)"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("name", ["torch", "triton", "auto"])
def test_a_host_without_cuda_says_so(name):
    """A missing device is a typed error, not a crash."""
    with pytest.raises(BackendUnavailable):
        open_backend(name, Choice(0))


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("rows", [24, 65_537, 1 << 20])
@pytest.mark.parametrize("name", ["torch", "triton"])
def test_cuda_equals_numpy(name, rows):
    """Every backend gives the CPU verifier's answers, also where rows fill no whole tile."""
    outcomes = golden.check_backend(name, open_backend(name, Choice(0)), rows)
    assert [o for o in outcomes if not o.ok] == []


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("name", ["torch", "triton"])
def test_a_whole_memory_fits(name):
    """0.97 of the memory can be filled beside the workspace."""
    device = open_backend(name, Choice(0))
    device.warm_up()
    admission = PROFILES["admission"]
    assert device.rows_for(admission) == admission.rows(device.device_info().memory_bytes)
    device.release()


@pytest.mark.gpu
@needs_cuda
def test_the_device_describes_itself():
    """Name, UUID, memory, driver and PCI id are there."""
    info = open_backend("torch", Choice(0)).device_info()
    assert info.uuid.startswith("GPU-")
    assert info.driver
    assert info.pci_bus_id
    assert info.memory_bytes > 1 << 30
    assert not info.stand_in
