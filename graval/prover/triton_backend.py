"""The Triton backend: fused kernels over chunks of rows; see `triton_kernels`, `gluon_kernels`.

Needs torch with CUDA, Triton and, on the first call, a C compiler or a filled kernel cache.

A fill runs chunk by chunk: the first layer into a buffer, then T layers: on Hopper in one launch
(`gluon_kernels`), elsewhere a launch a layer, back and forth between two buffers. A stage is one
upload, two kernels and one download; the host waits once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from graval import prf
from graval.challenge import DeviceInfo
from graval.errors import BackendUnavailable, ProtocolViolation
from graval.profile import MAX_TAGS, PROFILES, Profile
from graval.prover import cuda
from graval.prover.backend import Choice, Found
from graval.prover.cuda import torch
from graval.prover.tuning import Tuning, for_capability

try:
    from triton.tools.tensor_descriptor import TensorDescriptor

    from graval.prover import triton_kernels as kernels
except ImportError as error:
    raise BackendUnavailable(
        "triton_missing", f"the triton backend needs Triton: {error}", hint="use --backend torch"
    ) from error

FIRST_ROWS = 8  # rows of a program of the first layer
CHUNK_STEP = 256  # chunks are a multiple of every tile's rows
TAG_COLUMNS = 2 * prf.LANES
HIT_CAPACITY = 4 * MAX_TAGS
_WARM_TAGS = 24


def open_device(choice: Choice) -> "TritonBackend":
    """The backend on a CUDA device.

    Raises:
        BackendUnavailable: no CUDA device of this index.
    """
    device = cuda.require_device(choice)
    torch.cuda.set_device(device)
    major, _ = torch.cuda.get_device_capability(device)
    return TritonBackend(device, cuda.device_info(device, "triton"), for_capability(major))


class TritonBackend:
    """Rows in a torch tensor, computed by Triton; see `graval.prover.backend.Backend`."""

    def __init__(self, device: "torch.device", info: DeviceInfo, tuning: Tuning) -> None:
        self._device = device
        self._info = info
        self._memory = cuda.FillMemory(device)
        self._layers = Layers(device, info.sm_count, tuning)
        self._scan = Scan(device, info.sm_count, tuning)

    def device_info(self) -> DeviceInfo:
        """The device as torch and the driver describe it."""
        return self._info

    def rows_for(self, profile: Profile) -> int:
        """Rows of a profile that fit now."""
        return self._memory.rows_for(profile, self._info.memory_bytes)

    def warm_up(self) -> None:
        """Start CUDA, compile the kernels and, on an otherwise idle device, take its memory."""
        self._memory.reserve(self.rows_for(PROFILES["admission"]), self._info.memory_bytes)
        self.fill(bytes(32), 2, 2 * self._layers.chunk_rows + 1)
        self.find(prf.query(bytes(32), _WARM_TAGS), np.zeros(_WARM_TAGS, dtype=np.uint64))

    def fill(self, seed: bytes, layers: int, rows: int) -> None:
        """Compute the rows, chunk by chunk.

        Raises:
            NotEnoughMemory: the device cannot hold them.
        """
        held = self._memory.take(rows)
        key = prf.fill_key(seed, layers)
        try:
            self._layers.fill(key, held)
        except torch.OutOfMemoryError as error:
            raise self._memory.exhausted(rows) from error

    def find(self, asked: prf.Query, wanted: prf.U64) -> Found:
        """Scan the memory once for the tags that were asked for.

        Raises:
            ProtocolViolation: nothing is filled, or more rows match than there can be tags.
        """
        return self._scan.find(self._memory.filled(), asked, wanted)

    def release(self) -> None:
        """Give the memory back."""
        self._layers.release()
        self._scan.forget()
        self._memory.release()


@dataclass(frozen=True)
class _Lane:
    """What one chunk in flight needs: a stream and buffers int8 (chunk, N); y is None on Hopper."""

    stream: Any
    x: Any
    y: Any


class Layers:
    """The row function in bulk.

    Args:
        device: where.
        sm_count: of the device.
        tuning: how the kernels are cut.
    """

    def __init__(self, device: "torch.device", sm_count: int, tuning: Tuning) -> None:
        self._device = device
        self._tuning = tuning
        self._programs = sm_count * tuning.programs
        self.chunk_rows = -(-sm_count * tuning.chunk_rows // CHUNK_STEP) * CHUNK_STEP
        self._lanes: list[_Lane] = []

    def fill(self, key: prf.FillKey, held: Any, first: int = 0) -> None:
        """Compute rows from first on into held: int8 (rows, N). Returns when they are there."""
        weights = _put(key.weights_out_in, self._device)  # (N out, N in)
        k = _put(key.k.view(np.int32), self._device)
        c = _put(key.c.view(np.int32), self._device)
        _synchronise(self._device)  # the uploads, before other streams use them
        for number, at in enumerate(range(0, len(held), self.chunk_rows)):
            lane = self._lane(number % self._tuning.streams)
            rows = min(self.chunk_rows, len(held) - at)
            with torch.cuda.stream(lane.stream):
                kernels.first_layer[(-(-rows // FIRST_ROWS),)](
                    lane.x.view(torch.int32),
                    first + at,
                    k,
                    C1=prf.C1,
                    C2=prf.C2,
                    BLOCK_M=FIRST_ROWS,
                )
                if self._tuning.hopper:
                    self._all_layers(lane, weights, c, held, at, rows)
                else:
                    self._layer_by_layer(lane, weights, c, held[at : at + rows])
        _synchronise(self._device)

    def release(self) -> None:
        """Give the buffers back."""
        self._lanes = []

    def _lane(self, number: int) -> _Lane:
        if number == len(self._lanes):
            shape = (self.chunk_rows, prf.N)
            x = torch.empty(shape, dtype=torch.int8, device=self._device)
            y = None if self._tuning.hopper else torch.empty_like(x)
            stream = torch.cuda.Stream(self._device) if self._tuning.streams > 1 else None
            self._lanes.append(_Lane(stream, x, y))
        return self._lanes[number]

    def _all_layers(self, lane: _Lane, weights: Any, c: Any, held: Any, at: int, rows: int) -> None:
        from graval.prover import gluon_kernels as hopper  # sm_90 only

        pairs = -(-rows // hopper.PAIR_ROWS)
        programs = min(self._programs, pairs)
        hopper.all_layers[(programs,)](
            hopper.tiled(lane.x),
            hopper.tiled(weights),
            hopper.tiled(held),
            c,
            at,
            pairs,
            programs,
            len(c),
            SCRAMBLE_1=prf.SCRAMBLE_1,
            SCRAMBLE_2=prf.SCRAMBLE_2,
            STAGES=self._tuning.stages,
            num_warps=4,
        )

    def _layer_by_layer(self, lane: _Lane, weights: Any, c: Any, out: Any) -> None:
        m, n, depth = self._tuning.block
        programs = min(self._programs, -(-len(out) // m) * (prf.N // n))
        x, y = lane.x, lane.y
        for t in range(len(c)):
            kernels.layer[(programs,)](
                TensorDescriptor.from_tensor(x, [m, depth]),
                TensorDescriptor.from_tensor(weights, [n, depth]),
                out if t == len(c) - 1 else y,
                c,
                t,
                len(out),
                programs,
                SCRAMBLE_1=prf.SCRAMBLE_1,
                SCRAMBLE_2=prf.SCRAMBLE_2,
                BLOCK_M=m,
                BLOCK_N=n,
                BLOCK_K=depth,
                COLUMN_TILES=prf.N // n,
                FLATTEN=self._tuning.flatten,
                num_warps=self._tuning.warps,
                num_stages=self._tuning.stages,
            )
            x, y = y, x


class Scan:
    """One pass over all rows for a stage's tags.

    Args:
        device: where.
        sm_count: of the device.
        tuning: how the kernel is cut.
    """

    def __init__(self, device: "torch.device", sm_count: int, tuning: Tuning) -> None:
        self._device = device
        self._tuning = tuning
        self._programs = sm_count * tuning.scan_programs
        self._last: tuple[int, int, int] | None = None
        self._graph: Any = None
        on_host = {"pin_memory": device.type == "cuda"}
        slots = MAX_TAGS
        # upload: lanes twice, offsets, wanted; download: the first hit rows, then the hits
        self._asked = torch.empty(
            TAG_COLUMNS * prf.N + 4 * (TAG_COLUMNS + 2 * slots), dtype=torch.uint8, **on_host
        )
        self._asked_there = torch.empty_like(self._asked, device=device)
        self._reply = torch.empty(
            slots * prf.N + 8 * (1 + HIT_CAPACITY), dtype=torch.uint8, **on_host
        )
        self._reply_there = torch.empty_like(self._reply, device=device)

    def find(self, held: Any, asked: prf.Query, wanted: prf.U64) -> Found:
        """The rows of held, int8 (rows, N), whose tag is among wanted: uint64 (slots,).

        Raises:
            ProtocolViolation: more rows match than there can be tags.
        """
        slots = 1 << (len(wanted) - 1).bit_length()
        self._write(asked, np.resize(wanted, slots))  # repeats: a tag sought twice is found once
        key = (held.data_ptr(), len(held), slots)
        if key != self._last:  # the first stage may compile; the next is recorded
            self._last, self._graph = key, None
            self._launch(held, slots)
        else:
            if self._graph is None and self._device.type == "cuda":
                self._graph = self._record(held, slots)
            if self._graph is not None:
                self._graph.replay()
            else:
                self._launch(held, slots)
        _synchronise(self._device)
        return self._download()

    def forget(self) -> None:
        """Drop the recorded launches; what they read may be given back."""
        self._last, self._graph = None, None

    def _record(self, held: Any, slots: int) -> Any:
        """The launches of a stage as one graph: a replay costs the host next to nothing."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        with torch.cuda.stream(torch.cuda.Stream(self._device)):
            graph.capture_begin(capture_error_mode="thread_local")
            self._launch(held, slots)
            graph.capture_end()
        return graph

    def _launch(self, held: Any, slots: int) -> None:
        self._asked_there.copy_(self._asked, non_blocking=True)
        lanes, offsets, sought = self._asked_views(slots)
        hits, found = self._reply_views(self._reply_there)
        hits[:1].zero_()
        tile = self._tuning.scan_rows
        programs = min(self._programs, -(-len(held) // tile))
        kernels.scan[(programs,)](
            TensorDescriptor.from_tensor(held, [tile, prf.N]),
            lanes,
            offsets,
            sought,
            hits,
            len(held),
            programs,
            CAPACITY=HIT_CAPACITY,
            SLOTS=slots,
            LANES=prf.LANES,
            COLUMNS=TAG_COLUMNS,
            BLOCK_M=tile,
            STAGES=self._tuning.scan_stages,
            num_warps=self._tuning.scan_warps,
        )
        kernels.gather[(MAX_TAGS,)](held.view(torch.int32), hits, found.view(torch.int32))
        self._reply.copy_(self._reply_there, non_blocking=True)

    def _write(self, asked: prf.Query, sought: prf.U64) -> None:
        words = sought.astype("<u8").view("<u4").reshape(-1, 2)  # (slots, 2): low, high
        data = b"".join(
            (
                asked.lanes.tobytes() * 2,
                asked.a.astype("<u4").tobytes(),  # (2, LANES)
                np.ascontiguousarray(words.T).tobytes(),  # (2, slots)
            )
        )
        self._asked[: len(data)].numpy()[:] = np.frombuffer(data, dtype=np.uint8)

    def _asked_views(self, slots: int) -> tuple[Any, Any, Any]:
        lanes_end = TAG_COLUMNS * prf.N
        offsets_end = lanes_end + 4 * TAG_COLUMNS
        there = self._asked_there
        return (
            there[:lanes_end].view(torch.int8),
            there[lanes_end:offsets_end].view(torch.int32),
            there[offsets_end : offsets_end + 8 * slots].view(torch.int32),
        )

    def _reply_views(self, reply: Any) -> tuple[Any, Any]:
        rows_end = MAX_TAGS * prf.N
        return reply[rows_end:].view(torch.int64), reply[:rows_end].view(torch.int8)

    def _download(self) -> Found:
        hits, found = (view.numpy() for view in self._reply_views(self._reply))
        count = int(hits[0])
        if count > MAX_TAGS:
            raise ProtocolViolation("too_many_rows", f"{count} rows match at most {MAX_TAGS} tags")
        order = np.argsort(hits[1 : 1 + count])
        indices = hits[1 : 1 + count][order]
        return Found(tuple(int(i) for i in indices), found.reshape(-1, prf.N)[order])


def _put(array: Any, device: "torch.device") -> Any:
    return torch.from_numpy(np.array(array)).to(device)  # a copy: torch wants it writable


def _synchronise(device: "torch.device") -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
