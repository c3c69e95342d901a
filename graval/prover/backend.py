"""The seam between the protocol and a device: fill rows, find rows by tag.

Where on its path: `prove` drives a `Backend`; `open_backend` picks one by name and imports it only
then, so that a machine without torch can run the numpy one. Invariant: every backend yields the
rows and tags of `graval.prf`, bit by bit.
"""

import contextlib
import importlib
from dataclasses import dataclass
from typing import Protocol

from graval.challenge import DeviceInfo
from graval.errors import BackendUnavailable
from graval.prf import I8, U64, Query
from graval.profile import Profile

BACKENDS = ("triton", "torch", "numpy")


@dataclass(frozen=True)
class Found:
    """Rows whose tag was asked for: indices ascending (m,), rows int8 (m, N) in their order."""

    indices: tuple[int, ...]
    rows: I8


class Backend(Protocol):
    """One device that can hold a fill."""

    def device_info(self) -> DeviceInfo:
        """What the device says of itself."""
        ...

    def rows_for(self, profile: Profile) -> int:
        """Rows of a profile that the device can hold now; 0 when it cannot run the profile."""
        ...

    def warm_up(self) -> None:
        """Do once what the first fill and scan would pay for: start CUDA, compile, allocate."""
        ...

    def fill(self, seed: bytes, layers: int, rows: int) -> None:
        """Hold rows 0 to rows - 1 of this seed; the fill before it is dropped.

        Raises:
            NotEnoughMemory: the device cannot hold them.
        """
        ...

    def find(self, asked: Query, wanted: U64) -> Found:
        """Every held row whose unmasked tag is among wanted: uint64 (slots,)."""
        ...

    def release(self) -> None:
        """Give the fill's memory back."""
        ...


@dataclass(frozen=True)
class Choice:
    """Which device to open.

    Args:
        gpu: index among the visible GPUs, or of the stand-in.
        declare: class that a CPU stands in for; None for a real device.
        uuid: UUID of a stand-in; None for one derived from class and index.
    """

    gpu: int
    declare: str | None = None
    uuid: str | None = None


def open_backend(name: str, choice: Choice) -> Backend:
    """Open a backend by name; ``auto`` takes the first of triton, torch that runs here.

    ``auto`` with a declared class means numpy: nothing poses as a GPU unless it was declared.

    Raises:
        BackendUnavailable: it cannot run here, with the reason.
        UnknownDevice: the declared class is not in the table.
    """
    if name == "auto":
        return _open_auto(choice)
    if name not in BACKENDS:
        raise BackendUnavailable("unknown_backend", f"no backend is called {name!r}")
    if (name == "numpy") != (choice.declare is not None):
        raise BackendUnavailable(
            "declare",
            "the numpy backend needs a declared class, and a real GPU takes none",
            hint="--backend numpy --declare h100_sxm, on a devnet only",
        )
    module = importlib.import_module(f"graval.prover.{name}_backend")
    opened: Backend = module.open_device(choice)
    return opened


def prepare(name: str) -> None:
    """Import a backend, so that it opens sooner; no device is touched, what fails is said then.

    The CPU is nobody's: its backend runs once, on a small fill, as it will when it warms up.
    """
    for one in ("triton", "torch") if name == "auto" else (name,):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(f"graval.prover.{one}_backend")
            if one == "numpy":
                module.warm_cpu()


def _open_auto(choice: Choice) -> Backend:
    if choice.declare is not None:
        return open_backend("numpy", choice)
    try:
        return open_backend("triton", choice)
    except BackendUnavailable:
        return open_backend("torch", choice)
