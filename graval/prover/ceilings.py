"""What a CUDA device can do at most, measured with torch's own operations.

The ceilings that docs/graval.md divides by: a device-to-device copy, counting bytes read and
written, and `torch._int_mm` on random int8 matrices.
"""

import statistics
import time
from collections.abc import Callable

from graval.prover.cuda import torch

_COPIES = 12
_PRODUCTS = 30
_SIDE = 8192


def copy_tb_s(memory_bytes: int) -> float:
    """TB/s of copying 40 % of the memory onto another 40 %: the median of twelve."""
    half = memory_bytes * 2 // 5
    source, target = (torch.empty(half, dtype=torch.int8, device="cuda") for _ in (0, 1))
    source.random_(-128, 127)
    times_s = [_timed(lambda: target.copy_(source)) for _ in range(_COPIES)]
    return round(2 * half / statistics.median(times_s) / 1e12, 3)


def int8_tops() -> float:
    """TOPS of `torch._int_mm`, 8192 cubed, random data, the best of three runs of thirty."""
    a, b = (
        torch.randint(-128, 128, (_SIDE, _SIDE), dtype=torch.int8, device="cuda") for _ in (0, 1)
    )

    def products() -> None:
        for _ in range(_PRODUCTS):
            torch._int_mm(a, b.t())

    _timed(products)
    seconds = min(_timed(products) for _ in range(3)) / _PRODUCTS
    return round(2 * _SIDE**3 / seconds / 1e12, 1)


def free_cache() -> None:
    """Give back what the measurements held: a fill needs it."""
    torch.cuda.empty_cache()


def _timed(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start
