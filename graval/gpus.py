"""The table of known GPUs: what a device of each class says of itself.

Where on its path: the verifier compares a prover's `DeviceInfo` with this table before it picks a
reference. Strings are claims, not proof (docs/graval.md, section 5): the table only makes a false
claim contradict itself; the timed legs do the proving.

Source: NVIDIA's public product specifications (SM counts, compute capability) and the total
memory that drivers report (MiB), written down from memory in November 2026, except H100 SXM and
H200, whose figures were read on real cards (docs/graval.md, section 4). A driver's total differs
by a few MiB between versions, hence the tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graval.errors import UnknownDevice

if TYPE_CHECKING:
    from graval.challenge import DeviceInfo

MEMORY_TOLERANCE_PERCENT = 3
MIB = 1 << 20


@dataclass(frozen=True)
class GpuModel:
    """One class as hardware: `names` are the strings a driver may report for it."""

    short_name: str
    names: tuple[str, ...]
    memory_mib: int
    sm_counts: tuple[int, ...]
    compute_capability: str

    @property
    def memory_bytes(self) -> int:
        """The total memory that a driver reports, in bytes."""
        return self.memory_mib * MIB


def _table(text: str) -> dict[str, GpuModel]:
    models = {}
    for line in text.strip().splitlines():
        short_name, memory_mib, sm_counts, capability, names = line.split(maxsplit=4)
        models[short_name] = GpuModel(
            short_name=short_name,
            names=tuple(f"NVIDIA {name.strip()}" for name in names.split("|")),
            memory_mib=int(memory_mib),
            sm_counts=tuple(int(n) for n in sm_counts.split("/")),
            compute_capability=capability,
        )
    return models


GPUS: dict[str, GpuModel] = _table("""
3090           24576   82      8.6   GeForce RTX 3090
4090           24564   128     8.9   GeForce RTX 4090
5090           32607   170     12.0  GeForce RTX 5090
a4000          16376   48      8.6   RTX A4000
a4000_ada      20475   48      8.9   RTX 4000 Ada Generation
a5000          24564   64      8.6   RTX A5000
a6000          49140   84      8.6   RTX A6000
a6000_ada      49140   142     8.9   RTX 6000 Ada Generation
pro_6000       97887   188     12.0  RTX PRO 6000 Blackwell Server Edition|RTX PRO 6000 Blackwell Workstation Edition
l4             23034   58      8.9   L4
a10            23028   72      8.6   A10
a40            46068   84      8.6   A40
l40            46068   142     8.9   L40
l40s           46068   142     8.9   L40S
a100_40gb      40960   108     8.0   A100-PCIE-40GB
a100_40gb_sxm  40960   108     8.0   A100-SXM4-40GB
a100           81920   108     8.0   A100 80GB PCIe
a100_sxm       81920   108     8.0   A100-SXM4-80GB
h100           81559   114     9.0   H100 PCIe
h100_nvl       95830   132     9.0   H100 NVL
h100_sxm       81559   132     9.0   H100 80GB HBM3
h800           81559   114/132 9.0   H800|H800 PCIe
h20            97871   78      9.0   H20
h200           143771  132     9.0   H200|H200 NVL
b200           183359  148     10.0  B200
""")  # noqa: E501 # a table reads better unwrapped


def model(short_name: str) -> GpuModel:
    """The known GPU of this short name.

    Raises:
        UnknownDevice: no such class.
    """
    try:
        return GPUS[short_name]
    except KeyError as error:
        raise UnknownDevice(
            "unknown_gpu", f"no GPU class is called {short_name!r}", hint="see graval/gpus.py"
        ) from error


def identify(device_name: str) -> GpuModel | None:
    """The class whose driver string this is, or None."""
    return next((m for m in GPUS.values() if device_name in m.names), None)


def check_claims(short_name: str, info: DeviceInfo) -> list[str]:
    """The fields in which a device's own description disagrees with the class it claims.

    Returns:
        Names of fields of `DeviceInfo` (empty when all agree): ``short_name``, ``name``,
        ``memory_bytes``, ``sm_count``, ``compute_capability``, ``mig``.

    Raises:
        UnknownDevice: no such class.
    """
    known = model(short_name)
    tolerance = known.memory_bytes * MEMORY_TOLERANCE_PERCENT // 100
    agrees = {
        "short_name": info.short_name == known.short_name,
        "name": info.name in known.names,
        "memory_bytes": abs(info.memory_bytes - known.memory_bytes) <= tolerance,
        "sm_count": info.sm_count in known.sm_counts,
        "compute_capability": info.compute_capability == known.compute_capability,
        "mig": not info.mig,
    }
    return [field for field, ok in agrees.items() if not ok]
