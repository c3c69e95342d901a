"""The CPU as a declared stand-in: the reference backend, for tests and devnets.

It holds the fill in main memory and runs `graval.prf` itself. It describes itself with the table's
figures of the class it was told to declare, and always with ``stand_in=True`` and backend numpy.
"""

import hashlib

import numpy as np

from graval import prf
from graval.challenge import DeviceInfo
from graval.errors import NotEnoughMemory, ProtocolViolation
from graval.gpus import GPUS, model
from graval.profile import PROFILES, ROW_BYTES, Profile
from graval.prover.backend import Choice, Found

MAX_FILL_BYTES = 64 << 20
_SCAN_ROWS = 512
_WARM_ROWS = 64


def open_device(choice: Choice) -> "NumpyBackend":
    """A stand-in for the class that the choice declares."""
    assert choice.declare is not None, "open_backend checks it"
    known = model(choice.declare)
    label = f"{choice.declare}/{choice.gpu}".encode()
    uuid = choice.uuid or f"STANDIN-{hashlib.blake2b(label, digest_size=16).hexdigest()}"
    return NumpyBackend(
        DeviceInfo(
            short_name=known.short_name,
            name=known.names[0],
            uuid=uuid,
            memory_bytes=known.memory_bytes,
            sm_count=known.sm_counts[0],
            compute_capability=known.compute_capability,
            backend="numpy",
            stand_in=True,
        )
    )


def warm_cpu() -> None:
    """Load BLAS and touch every code path once, on a small fill that is dropped."""
    stand_in = open_device(Choice(0, declare=min(GPUS)))
    stand_in.warm_up()


class NumpyBackend:
    """Rows in main memory; see `graval.prover.backend.Backend`."""

    def __init__(self, info: DeviceInfo) -> None:
        self._info = info
        self._rows: prf.I8 | None = None  # (rows, N)

    def device_info(self) -> DeviceInfo:
        """The declared class, marked as a stand-in."""
        return self._info

    def rows_for(self, profile: Profile) -> int:
        """The profile's rows where they are few enough for a CPU, else 0."""
        rows = profile.rows(self._info.memory_bytes)
        return rows if rows * ROW_BYTES <= MAX_FILL_BYTES else 0

    def warm_up(self) -> None:
        """Load BLAS and touch every code path once, on a small fill."""
        self.fill(bytes(32), PROFILES["test"].layers, _WARM_ROWS)
        self.find(prf.query(bytes(32), 1), np.zeros(1, dtype=np.uint64))
        self.release()

    def fill(self, seed: bytes, layers: int, rows: int) -> None:
        """Compute and hold the rows.

        Raises:
            NotEnoughMemory: more than a stand-in holds.
        """
        if rows * ROW_BYTES > MAX_FILL_BYTES:
            raise NotEnoughMemory(
                "stand_in_memory",
                f"a stand-in holds at most {MAX_FILL_BYTES} bytes",
                hint="ask it for the test profile",
            )
        self._rows = None
        held = np.empty((rows, prf.N), dtype=np.int8)
        function = prf.RowFunction(prf.fill_key(seed, layers))
        function.rows_into(np.arange(rows, dtype=np.uint32), held)
        self._rows = held

    def find(self, asked: prf.Query, wanted: prf.U64) -> Found:
        """Compute every row's tag and keep the rows that were asked for.

        Raises:
            ProtocolViolation: nothing is filled.
        """
        if self._rows is None:
            raise ProtocolViolation("not_filled", "there is no fill to scan")
        hits = [
            at
            + np.flatnonzero(np.isin(prf.row_tags(asked, self._rows[at : at + _SCAN_ROWS]), wanted))
            for at in range(0, len(self._rows), _SCAN_ROWS)
        ]
        indices = np.concatenate(hits)  # (m,), ascending
        return Found(tuple(int(i) for i in indices), self._rows[indices])

    def release(self) -> None:
        """Drop the rows."""
        self._rows = None
