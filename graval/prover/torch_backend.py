"""The pure-torch backend: `torch._int_mm` and eager integer operations, chunk by chunk.

The fallback where Triton does not run; 16 times slower than the fused kernels (77 int8 TOPS on an
H100, docs/graval.md, section 4), so it needs a calibration of its own before it can meet a
deadline. Exact: int8 products are summed in int32, words wrap at 2^32.

torch has no unsigned 32-bit arithmetic: words are int32, multiplication wraps, and a logical shift
is an arithmetic one with the sign bits masked off.
"""

from typing import Any

import numpy as np

from graval import prf
from graval.challenge import DeviceInfo
from graval.profile import Profile
from graval.prover import cuda
from graval.prover.backend import Choice, Found
from graval.prover.cuda import torch

FILL_CHUNK_ROWS = 1 << 13  # int32 temporaries of 32 MiB each
SCAN_CHUNK_ROWS = 1 << 18
_LANE_COLUMNS = 8  # _int_mm wants a multiple of 8 columns; the surplus lanes are zero
_WARM_ROWS = 2 * FILL_CHUNK_ROWS


def open_device(choice: Choice) -> "TorchBackend":
    """The backend on a CUDA device.

    Raises:
        BackendUnavailable: no CUDA device of this index.
    """
    device = cuda.require_device(choice)
    return TorchBackend(device, cuda.device_info(device, "torch"))


class TorchBackend:
    """Rows in a torch tensor; see `graval.prover.backend.Backend`."""

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
        """Start CUDA and choose cuBLAS kernels on a small fill."""
        self.fill(bytes(32), 2, _WARM_ROWS)
        self.find(prf.query(bytes(32), 1), np.zeros(1, dtype=np.uint64))

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
        weights = self._put(key.weights_out_in).t()  # (N in, N out), a view
        for at in range(0, len(held), FILL_CHUNK_ROWS):
            end = min(at + FILL_CHUNK_ROWS, len(held))
            x = self._first_layer(key.k, at, at + FILL_CHUNK_ROWS)  # (chunk, N) int8
            for c in key.c:
                x = _requantise(torch._int_mm(x, weights), int(c))  # (chunk, N)
            held[at:end] = x[: end - at]
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _first_layer(self, k: prf.U32, start: int, end: int) -> Any:
        k0, k1, k2, k3 = (_signed(int(word)) for word in k)
        index = torch.arange(start, end, device=self._device).to(torch.int32)  # (m,), wraps
        ra = _mix(index * _signed(prf.C1) + k0)[:, None]  # (m, 1)
        rb = _mix((index ^ k2) * _signed(prf.C2) + k1)[:, None]  # (m, 1)
        column = torch.arange(prf.N // 4, device=self._device).to(torch.int32)  # (N / 4,)
        words = _mix(_mix((column * _signed(prf.C2) + k3)[None, :] + ra) ^ rb)  # (m, N / 4)
        return words.contiguous().view(torch.int8)  # (m, N), little-endian

    def find(self, asked: prf.Query, wanted: prf.U64) -> Found:
        """Compute every row's tag and keep the rows that were asked for."""
        held = self._memory.filled()
        padded = np.zeros((_LANE_COLUMNS, prf.N), dtype=np.int8)
        padded[: prf.LANES] = asked.lanes
        lanes = self._put(padded).t()  # (N, 8)
        sought = self._put(wanted.view(np.int64))  # (slots,)
        hits = []
        for at in range(0, len(held), SCAN_CHUNK_ROWS):
            tags = _tags(held[at : at + SCAN_CHUNK_ROWS], lanes, asked.a)  # (chunk,) int64
            hits.append(at + torch.isin(tags, sought).nonzero().flatten())
        indices = torch.cat(hits)  # (m,), ascending
        return Found(tuple(indices.tolist()), held[indices].cpu().numpy())

    def release(self) -> None:
        """Give the memory back."""
        self._memory.release()

    def _put(self, array: Any) -> Any:
        return torch.from_numpy(np.array(array)).to(self._device)  # a copy: torch wants it writable


def _signed(word: int) -> int:
    """A 32-bit word as the int32 of the same bits."""
    return word - (1 << 32) if word >= 1 << 31 else word


def _shift_right(x: Any, bits: int) -> Any:
    return (x >> bits) & ((1 << (32 - bits)) - 1)


def _mix(x: Any) -> Any:
    x = (x ^ _shift_right(x, 16)) * 0x7FEB352D
    x = (x ^ _shift_right(x, 15)) * _signed(0x846CA68B)
    return x ^ _shift_right(x, 16)


def _requantise(y: Any, c: int) -> Any:
    """int32 (m, N) -> int8 (m, N), in place but for one temporary: each pass costs bandwidth."""
    y.mul_(prf.SCRAMBLE_1).add_(_signed(c))
    y.bitwise_xor_((y >> 15).bitwise_and_((1 << 17) - 1))  # a logical shift
    y.mul_(prf.SCRAMBLE_2)
    return y.view(torch.int8)[:, 3::4].contiguous()  # the top bytes


def _tags(rows: Any, lanes: Any, offsets: prf.U32) -> Any:
    """int8 (m, N) -> int64 (m,): the bits of each row's unmasked tag."""
    short = max(0, 32 - len(rows))  # _int_mm on CUDA wants more than 16 rows
    if short:
        rows = torch.cat([rows, rows.new_zeros((short, prf.N))])
    sums = torch._int_mm(rows, lanes)[:, : prf.LANES]  # (m, LANES) int32
    halves = []
    for h in (0, 1):
        total = torch.zeros_like(sums[:, 0])  # (m,) int32, wraps
        for lane in range(prf.LANES):
            total += _mix(sums[:, lane] + _signed(int(offsets[h, lane])))
        halves.append(total.to(torch.int64) & 0xFFFFFFFF)
    tags = (halves[1] << 32) | halves[0]
    return tags[: len(tags) - short]
