"""The Triton kernels: first layer, layer (int8 GEMM fused with requantisation), tag scan, gather.

Each is the kernel of a function of `graval.prf` and must equal it bit by bit. Words are uint32,
so shifts are logical and products wrap. Shapes: R rows, N = 1024.

`layer` and `scan` are persistent: a fixed number of programs walks over the tiles, so that the
loads of the next tile run under the arithmetic of this one. Tiles are loaded through tensor
descriptors, which on Hopper and later are the bulk tensor copy engine (TMA) and elsewhere plain
loads. On Hopper `gluon_kernels` takes the place of `layer`. Tile sizes: `tuning`.
"""
# Triton reads a kernel's annotations as Triton types: only constexpr may stand there.
# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, type-arg"

import triton
import triton.language as tl

N = tl.constexpr(1024)
WORDS = tl.constexpr(256)


@triton.jit
def mix(x):
    """lowbias32 of uint32 words."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit(do_not_specialize=["start"])
def first_layer(
    out,
    start,
    k,
    C1: tl.constexpr,
    C2: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Write X_0 of the BLOCK_M rows from start + program * BLOCK_M on.

    out: int32 (R, WORDS), R a multiple of BLOCK_M; start: below 2^32; k: uint32 (4,) as int32.
    """
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # (BLOCK_M,)
    index = start.to(tl.uint32) + m.to(tl.uint32)
    k0 = tl.load(k + 0).to(tl.uint32, bitcast=True)
    k1 = tl.load(k + 1).to(tl.uint32, bitcast=True)
    k2 = tl.load(k + 2).to(tl.uint32, bitcast=True)
    k3 = tl.load(k + 3).to(tl.uint32, bitcast=True)
    ra = mix(index * C1 + k0)[:, None]  # (BLOCK_M, 1)
    rb = mix((index ^ k2) * C2 + k1)[:, None]
    j = tl.arange(0, WORDS)  # (WORDS,)
    column = (j.to(tl.uint32) * C2 + k3)[None, :]
    words = mix(mix(column + ra) ^ rb)  # (BLOCK_M, WORDS)
    tl.store(out + m[:, None] * WORDS + j[None, :], words.to(tl.int32, bitcast=True))


@triton.jit
def scramble(sums, offset, SCRAMBLE_1: tl.constexpr, SCRAMBLE_2: tl.constexpr):
    """int8 of the top byte of the scrambled integers: int32 -> int8."""
    h = sums.to(tl.uint32, bitcast=True) * SCRAMBLE_1 + offset
    h = (h ^ (h >> 15)) * SCRAMBLE_2
    return (h >> 24).to(tl.uint8).to(tl.int8, bitcast=True)


@triton.jit(do_not_specialize=["t", "rows", "programs"])
def layer(
    x,
    weights,
    out,
    c,
    t,
    rows,
    programs,
    SCRAMBLE_1: tl.constexpr,
    SCRAMBLE_2: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    COLUMN_TILES: tl.constexpr,
    FLATTEN: tl.constexpr,
):
    """X' = int8(scramble(X W) >> 24), tile by tile, on any GPU with int8 tensor cores.

    x: descriptor int8 (R, N) by (BLOCK_M, BLOCK_K); weights: descriptor int8 (N out, N in) by
    (BLOCK_N, BLOCK_K); out: int8 (rows, N); c: int32 (T,); rows: at most R;
    COLUMN_TILES: N / BLOCK_N.
    """
    tiles = tl.cdiv(rows, BLOCK_M) * COLUMN_TILES
    addend = tl.load(c + t).to(tl.uint32, bitcast=True)
    for tile in tl.range(tl.program_id(0), tiles, programs, flatten=FLATTEN):
        m = (tile // COLUMN_TILES) * BLOCK_M
        n = (tile % COLUMN_TILES) * BLOCK_N
        sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.int32)
        for at in range(0, N, BLOCK_K):
            a = x.load([m, at])  # (BLOCK_M, BLOCK_K)
            b = weights.load([n, at])  # (BLOCK_N, BLOCK_K)
            sums = tl.dot(a, b.T, acc=sums, out_dtype=tl.int32)
        top = scramble(sums, addend, SCRAMBLE_1, SCRAMBLE_2)  # (BLOCK_M, BLOCK_N)
        row = (m + tl.arange(0, BLOCK_M))[:, None]
        column = (n + tl.arange(0, BLOCK_N))[None, :]
        tl.store(out + row.to(tl.int64) * N + column, top, mask=row < rows)


@triton.jit(do_not_specialize=["rows", "programs"])
def scan(
    held,
    lanes,
    offsets,
    wanted,
    hits,
    rows,
    programs,
    CAPACITY: tl.constexpr,
    SLOTS: tl.constexpr,
    LANES: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Tags of all rows; the indices of those asked for are appended to hits.

    held: descriptor int8 (rows, N) by (BLOCK_M, N). lanes: int8 (COLUMNS, N): the LANES
    lanes, and the same again for the tag's second word. offsets: int32 (COLUMNS,), likewise.
    wanted: int32 (2, SLOTS), low and high words. hits: int64 (1 + CAPACITY,), the count first.
    """
    lane = tl.arange(0, COLUMNS)  # (COLUMNS,)
    depth = tl.arange(0, N)  # (N,)
    queries = tl.load(lanes + lane[None, :] * N + depth[:, None])  # (N, COLUMNS)
    addends = tl.load(offsets + lane).to(tl.uint32, bitcast=True)[None, :]
    is_low = ((lane // LANES) == 0)[None, :]
    is_high = ((lane // LANES) == 1)[None, :]
    slot = tl.arange(0, SLOTS)
    low_wanted = tl.load(wanted + slot)[None, :]  # (1, SLOTS)
    high_wanted = tl.load(wanted + SLOTS + slot)[None, :]
    tiles = tl.cdiv(rows, BLOCK_M)
    for tile in tl.range(tl.program_id(0), tiles, programs, num_stages=STAGES):
        sums = tl.dot(held.load([tile * BLOCK_M, 0]), queries, out_dtype=tl.int32)
        mixed = mix(sums.to(tl.uint32, bitcast=True) + addends).to(tl.int32, bitcast=True)
        low = tl.sum(tl.where(is_low, mixed, 0), axis=1)  # (BLOCK_M,), wraps
        high = tl.sum(tl.where(is_high, mixed, 0), axis=1)
        differ = (low[:, None] ^ low_wanted) | (high[:, None] ^ high_wanted)  # (BLOCK_M, SLOTS)
        found = tl.max((differ == 0).to(tl.int32), axis=1)  # (BLOCK_M,)
        m = (tile * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
        hit = (found > 0) & (m < rows)
        place = tl.atomic_add(hits + tl.zeros_like(found), tl.full((BLOCK_M,), 1, tl.int64), hit)
        tl.store(hits + 1 + place, m, mask=hit & (place < CAPACITY))


@triton.jit
def gather(held, hits, out):
    """Copy the hit rows behind each other: held, out int32 (R, WORDS); hits as in `scan`."""
    at = tl.program_id(0)
    count = tl.load(hits)
    j = tl.arange(0, WORDS)
    if at < count:
        row = tl.load(hits + 1 + at)
        tl.store(out + at * WORDS + j, tl.load(held + row * WORDS + j))
