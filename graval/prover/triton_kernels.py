"""The three Triton kernels: first layer, layer (int8 GEMM fused with requantisation), tag scan.

Each is the kernel of a function of `graval.prf` and must equal it bit by bit. Words are uint32,
so shifts are logical and products wrap. Shapes: R rows, N = 1024.

Status: plain pointer kernels without TMA or persistence. The prototype's persistent TMA kernel
(1121 int8 TOPS on an H100) is not ported yet; these have not been timed.
"""

from typing import Any

import triton
import triton.language as tl

N = tl.constexpr(1024)
WORDS = tl.constexpr(256)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore] # triton has no types
def mix(x: Any) -> Any:
    """lowbias32 of uint32 words."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def first_layer(out: Any, start: Any, k: Any, C1: tl.constexpr, C2: tl.constexpr) -> None:
    """Write X_0 of row start + program: out int32 (R, WORDS); k uint32 (4,) as int32 bits."""
    row = tl.program_id(0)
    index = (start + row).to(tl.uint32)
    k0 = tl.load(k + 0).to(tl.uint32, bitcast=True)
    k1 = tl.load(k + 1).to(tl.uint32, bitcast=True)
    k2 = tl.load(k + 2).to(tl.uint32, bitcast=True)
    k3 = tl.load(k + 3).to(tl.uint32, bitcast=True)
    ra = mix(index * C1 + k0)
    rb = mix((index ^ k2) * C2 + k1)
    j = tl.arange(0, WORDS)  # (WORDS,)
    words = mix(mix(j.to(tl.uint32) * C2 + k3 + ra) ^ rb)
    tl.store(out + row.to(tl.int64) * WORDS + j, words.to(tl.int32, bitcast=True))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def layer(
    x: Any,
    weights: Any,
    out: Any,
    c: Any,
    rows: Any,
    SCRAMBLE_1: tl.constexpr,
    SCRAMBLE_2: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """One tile of X' = int8(scramble(X W) >> 24).

    x: int8 (rows, N); weights: int8 (N out, N in); out: int8 (rows, N); c: int32 (1,).
    """
    column_tiles: tl.constexpr = N // BLOCK_N
    tile = tl.program_id(0)
    m = (tile // column_tiles).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)  # (BLOCK_M,)
    n = (tile % column_tiles) * BLOCK_N + tl.arange(0, BLOCK_N)  # (BLOCK_N,)
    depth = tl.arange(0, BLOCK_K)  # (BLOCK_K,)
    inside = m < rows
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
    for at in range(0, N, BLOCK_K):
        a = tl.load(x + m[:, None] * N + (at + depth)[None, :], mask=inside[:, None], other=0)
        b = tl.load(weights + n[None, :] * N + (at + depth)[:, None])  # (BLOCK_K, BLOCK_N)
        sums += tl.dot(a, b, out_dtype=tl.int32)
    offset = tl.load(c).to(tl.uint32, bitcast=True)
    h = sums.to(tl.uint32, bitcast=True) * SCRAMBLE_1 + offset
    h = (h ^ (h >> 15)) * SCRAMBLE_2
    top = (h >> 24).to(tl.uint8).to(tl.int8, bitcast=True)  # (BLOCK_M, BLOCK_N)
    tl.store(out + m[:, None] * N + n[None, :], top, mask=inside[:, None])


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def scan(
    rows_held: Any,
    lanes: Any,
    offsets: Any,
    wanted_low: Any,
    wanted_high: Any,
    hits: Any,
    hit_count: Any,
    rows: Any,
    CAPACITY: tl.constexpr,
    SLOTS: tl.constexpr,
    LANES: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Tags of BLOCK_M rows; the indices of those asked for are appended to hits.

    rows_held: int8 (rows, N); lanes: int8 (COLUMNS, N), zero from LANES on; offsets: int32
    (2, COLUMNS); wanted_*: int32 (SLOTS,); hits: int64 (CAPACITY,); hit_count: int32 (1,).
    """
    m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)  # (BLOCK_M,)
    lane = tl.arange(0, COLUMNS)  # (COLUMNS,)
    depth = tl.arange(0, BLOCK_K)  # (BLOCK_K,)
    inside = m < rows
    sums = tl.zeros((BLOCK_M, COLUMNS), dtype=tl.int32)
    for at in range(0, N, BLOCK_K):
        a = tl.load(
            rows_held + m[:, None] * N + (at + depth)[None, :], mask=inside[:, None], other=0
        )  # (BLOCK_M, BLOCK_K)
        b = tl.load(lanes + lane[None, :] * N + (at + depth)[:, None])  # (BLOCK_K, COLUMNS)
        sums += tl.dot(a, b, out_dtype=tl.int32)
    words = sums.to(tl.uint32, bitcast=True)  # (BLOCK_M, COLUMNS)
    real = (lane < LANES)[None, :]
    low_offsets = tl.load(offsets + lane).to(tl.uint32, bitcast=True)
    high_offsets = tl.load(offsets + COLUMNS + lane).to(tl.uint32, bitcast=True)
    low_mixed = tl.where(real, mix(words + low_offsets[None, :]).to(tl.int32, bitcast=True), 0)
    high_mixed = tl.where(real, mix(words + high_offsets[None, :]).to(tl.int32, bitcast=True), 0)
    low = tl.sum(low_mixed, axis=1)  # (BLOCK_M,), wraps
    high = tl.sum(high_mixed, axis=1)
    slot = tl.arange(0, SLOTS)
    same_low = low[:, None] == tl.load(wanted_low + slot)[None, :]  # (BLOCK_M, SLOTS)
    same_high = high[:, None] == tl.load(wanted_high + slot)[None, :]
    found = tl.max((same_low & same_high).to(tl.int32), axis=1)  # (BLOCK_M,)
    hit = (found > 0) & inside
    place = tl.atomic_add(hit_count + tl.zeros_like(found), 1, mask=hit)
    tl.store(hits + place, m, mask=hit & (place < CAPACITY))
