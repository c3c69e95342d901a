"""The form of NVIDIA's NVML that both the prover and the miner call through ctypes.

Invariant: importing this loads no library and touches no device. Source of names: NVIDIA's NVML API
reference (nvml.h).
"""

import ctypes
from collections.abc import Callable
from typing import Protocol


class Library(Protocol):
    """The part of NVML that is called."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        """Return a function that answers 0 where it succeeded."""
        ...


class PciInfo(ctypes.Structure):
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
