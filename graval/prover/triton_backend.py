"""The Triton backend: three kernels over chunks of rows; see `triton_kernels`.

Needs torch with CUDA, Triton and, on the first call, a compiler or a filled kernel cache.

Status: its answers equal the numpy verifier's in Triton's interpreter on a CPU; not yet run or
timed on CUDA.
"""

from typing import Any

import numpy as np

from graval import prf
from graval.challenge import DeviceInfo
from graval.errors import BackendUnavailable
from graval.profile import MAX_TAGS, Profile
from graval.prover import cuda
from graval.prover.backend import Choice, Found
from graval.prover.cuda import torch

try:
    from graval.prover import triton_kernels as kernels
except ImportError as error:
    raise BackendUnavailable(
        "triton_missing", f"the triton backend needs Triton: {error}", hint="use --backend torch"
    ) from error

CHUNK_ROWS = 1 << 16  # two int8 buffers of 64 MiB
LAYER_TILE = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 128}
LAYER_LAUNCH = {"num_warps": 4, "num_stages": 3}
SCAN_TILE = {"BLOCK_M": 64, "BLOCK_K": 512}
LANE_COLUMNS = 16  # the least width of a tensor-core tile; the surplus lanes are zero
HIT_CAPACITY = 4 * MAX_TAGS
_WARM_ROWS = 2 * CHUNK_ROWS


def open_device(choice: Choice) -> "TritonBackend":
    """The backend on a CUDA device.

    Raises:
        BackendUnavailable: no CUDA device of this index.
    """
    device = cuda.require_device(choice)
    torch.cuda.set_device(device)
    return TritonBackend(device, cuda.device_info(device, "triton"))


class TritonBackend:
    """Rows in a torch tensor, computed by Triton; see `graval.prover.backend.Backend`."""

    def __init__(self, device: "torch.device", info: DeviceInfo) -> None:
        self._device = device
        self._info = info
        self._memory = cuda.FillMemory(device)

    def device_info(self) -> DeviceInfo:
        """The device as torch and the driver describe it."""
        return self._info

    def rows_for(self, profile: Profile) -> int:
        """Rows of a profile that fit now."""
        return self._memory.rows_for(profile, self._info.memory_bytes)

    def warm_up(self) -> None:
        """Start CUDA and compile the kernels on a small fill."""
        self.fill(bytes(32), 2, _WARM_ROWS)
        self.find(prf.query(bytes(32), 24), np.zeros(24, dtype=np.uint64))

    def fill(self, seed: bytes, layers: int, rows: int) -> None:
        """Compute the rows, chunk by chunk.

        Raises:
            NotEnoughMemory: the device cannot hold them.
        """
        key = prf.fill_key(seed, layers)
        held = self._memory.take(rows)
        try:
            self._fill(key, held)
        except torch.OutOfMemoryError as error:
            raise self._memory.exhausted(rows) from error

    def _fill(self, key: prf.FillKey, held: Any) -> None:
        weights = self._put(key.weights_out_in)  # (N out, N in)
        k, c = self._put(key.k.view(np.int32)), self._put(key.c.view(np.int32))
        chunk = min(CHUNK_ROWS, len(held))
        buffers = [torch.empty((chunk, prf.N), dtype=torch.int8, device=self._device)
                   for _ in (0, 1)]  # fmt: skip
        for at in range(0, len(held), CHUNK_ROWS):
            out = held[at : at + CHUNK_ROWS]  # (m, N)
            x = buffers[0][: len(out)]
            kernels.first_layer[(len(out),)](
                x.view(torch.int32), at, k, C1=prf.C1, C2=prf.C2, num_warps=2
            )
            for t in range(key.layers):
                y = out if t == key.layers - 1 else buffers[(t + 1) % 2][: len(out)]
                self._layer(x, weights, y, c[t:])
                x = y
        self._synchronise()

    def _layer(self, x: Any, weights: Any, out: Any, c: Any) -> None:
        tiles_m = -(-len(x) // LAYER_TILE["BLOCK_M"])
        tiles = tiles_m * (prf.N // LAYER_TILE["BLOCK_N"])
        kernels.layer[(tiles,)](
            x,
            weights,
            out,
            c,
            len(x),
            SCRAMBLE_1=prf.SCRAMBLE_1,
            SCRAMBLE_2=prf.SCRAMBLE_2,
            **LAYER_TILE,
            **LAYER_LAUNCH,
        )

    def find(self, asked: prf.Query, wanted: prf.U64) -> Found:
        """Scan the memory once for the tags that were asked for."""
        held = self._memory.filled()
        lanes = np.zeros((LANE_COLUMNS, prf.N), dtype=np.int8)
        lanes[: prf.LANES] = asked.lanes
        offsets = np.zeros((2, LANE_COLUMNS), dtype=np.uint32)
        offsets[:, : prf.LANES] = asked.a
        slots = 1 << (len(wanted) - 1).bit_length()
        sought = np.resize(wanted, slots)  # repeats: a tag sought twice is found once
        low, high = sought & np.uint64(0xFFFFFFFF), sought >> np.uint64(32)
        hits = torch.zeros(HIT_CAPACITY, dtype=torch.int64, device=self._device)
        count = torch.zeros(1, dtype=torch.int32, device=self._device)
        kernels.scan[(-(-len(held) // SCAN_TILE["BLOCK_M"]),)](
            held,
            self._put(lanes),
            self._put(offsets.view(np.int32)),
            self._put(low.astype(np.uint32).view(np.int32)),
            self._put(high.astype(np.uint32).view(np.int32)),
            hits,
            count,
            len(held),
            CAPACITY=HIT_CAPACITY,
            SLOTS=slots,
            LANES=prf.LANES,
            COLUMNS=LANE_COLUMNS,
            **SCAN_TILE,
        )
        indices = hits[: int(count.item())].sort().values  # (m,)
        return Found(tuple(indices.tolist()), held[indices].cpu().numpy())

    def release(self) -> None:
        """Give the memory back."""
        self._memory.release()

    def _put(self, array: Any) -> Any:
        return torch.from_numpy(np.array(array)).to(self._device)  # a copy: torch wants it writable

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
