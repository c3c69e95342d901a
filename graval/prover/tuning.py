"""Tile sizes and launch shapes of the Triton backend, by architecture.

Where on its path: `triton_backend` takes one `Tuning`. None of these figures changes a bit of a
row or a tag. Source: the sweep of tests/bench/graval_sweep.py on an H100 and an H200 (sm_90),
docs/measurements; other architectures run the portable layer with the smallest tiles that fit.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuning:
    """How the kernels are cut and launched.

    Args:
        hopper: layers run in `gluon_kernels.all_layers` (sm_90); else in `triton_kernels.layer`.
        block: (rows, columns, depth) of a tile of the portable layer; the Hopper one has its own.
        warps: of the portable layer.
        stages: tiles in flight: of W in the Hopper layer, of both operands in the portable one.
        flatten: the portable layer prefetches across tiles.
        programs: programs of the layer on each SM.
        chunk_rows: rows on each SM that pass through all layers together.
        streams: chunks in flight at once.
        scan_rows: rows of a tile of the scan.
        scan_warps: of the scan.
        scan_stages: tiles of the scan in flight.
        scan_programs: programs of the scan on each SM.
    """

    hopper: bool = False
    block: tuple[int, int, int] = (128, 128, 64)
    warps: int = 4
    stages: int = 3
    flatten: bool = False
    programs: int = 2
    chunk_rows: int = 512
    streams: int = 1
    scan_rows: int = 32
    scan_warps: int = 4
    scan_stages: int = 3
    scan_programs: int = 2


HOPPER = Tuning(
    hopper=True,
    stages=4,
    programs=1,
    chunk_rows=256,
    streams=2,
    scan_rows=32,
    scan_warps=4,
    scan_stages=3,
    scan_programs=3,
)
PORTABLE = Tuning(block=(128, 128, 64), stages=2, programs=1, scan_rows=16, scan_programs=2)


def for_capability(major: int) -> Tuning:
    """The tuning of a device of this compute capability."""
    return HOPPER if major == 9 else PORTABLE
