"""What a CUDA bundle is made of: one build of torch, and the driver that it needs at least.

Invariant: these are the versions that docs/measurements was measured with; others are refused by
the builder, because Triton's kernel cache and graval's Gluon kernels are tied to them, and every
timing reference to the kernels. Change them together with a new run of `scripts/gpu_bundle_check`.

Source of the drivers: NVIDIA's CUDA toolkit release notes, table of minimum driver versions for
minor version compatibility (CUDA 12.x: 525.60.13; 13.x: 580).
"""

TORCH = "2.11.0+cu130"
TRITON = "3.6.0"
LEAST_DRIVERS = {"12": "525.60.13", "13": "580.65.06"}  # by the CUDA major version, on Linux


def least_driver(cuda: str) -> str:
    """Return the least Linux driver for a CUDA version such as ``13.0``.

    >>> least_driver("13.0")
    '580.65.06'
    """
    return LEAST_DRIVERS[cuda.split(".")[0]]
