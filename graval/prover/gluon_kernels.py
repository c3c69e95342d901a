"""All layers of a fill for Hopper, in Gluon: 128 rows stay on a processor, W streams past them.

    producer (1 warp)      loads the 8 parts of A once a row block, and 64 tiles of W
    consumers (2 x 4 warps) take turns: one multiplies while the other requantises and stores

A program takes two row blocks through all layers, by turns, so that what a block needs was stored
a whole block ago. Against a tiled GEMM of 128 x 128 (`triton_kernels.layer`) A is read once and
not eight times, activations live in the L2 cache and never go to memory, the epilogue runs under
the other consumer's products, and a launch is many layers long. Shapes: R rows, N = 1024; equal to
`graval.prf` bit by bit.

A part, a tile and a stored block are guarded by barriers whose phase is the parity of the number of
uses. A wait tells apart only neighbouring phases, so a consumer starts when the other has seen its
last tile (`order`): else it would take an older use of a stage for its own. A block is overwritten
in place: the first store comes after the last part of it was loaded.
"""

from typing import Any

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

# Triton reads a kernel's annotations as Triton types: only constexpr may stand there.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, type-arg"

BLOCK = gl.constexpr(128)
PAIR_ROWS = 256
PARTS = gl.constexpr(8)  # N / BLOCK: parts of K, and column blocks
TILE_BYTES = gl.constexpr(128 * 128)
TILE = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=8, rank=2)


def tiled(matrix: Any) -> TensorDescriptor:
    """The descriptor of an int8 matrix (R, N) by tiles of (128, 128)."""
    return TensorDescriptor.from_tensor(matrix, [128, 128], TILE)


@gluon.jit
def _produce(
    x, weights, a, b, a_full, a_empty, b_full, b_empty, stored, pairs, programs, layers,
    STAGES: gl.constexpr,
):  # fmt: skip
    tile = 0
    turn = 0  # block-layers so far
    for pair in range(gl.program_id(0), pairs, programs):
        for step in range(2 * layers):  # layer by layer, the two blocks by turns
            half = step & 1
            mbarrier.wait(stored.index(half), ((turn >> 1) & 1) ^ 1)
            for n in range(PARTS):
                for k in range(PARTS):
                    if n == 0:
                        mbarrier.wait(a_empty.index(k), (turn & 1) ^ 1)
                        mbarrier.expect(a_full.index(k), TILE_BYTES)
                        tma.async_copy_global_to_shared(
                            x, [(2 * pair + half) * BLOCK, k * BLOCK], a_full.index(k), a.index(k)
                        )
                    stage = tile % STAGES
                    mbarrier.wait(b_empty.index(stage), ((tile // STAGES) & 1) ^ 1)
                    mbarrier.expect(b_full.index(stage), TILE_BYTES)
                    tma.async_copy_global_to_shared(
                        weights, [n * BLOCK, k * BLOCK], b_full.index(stage), b.index(stage)
                    )
                    tile += 1
            turn += 1


@gluon.jit
def _stores_done():
    """Wait until this thread's bulk stores are complete, not only read from shared memory."""
    gl.inline_asm_elementwise(
        "cp.async.bulk.wait_group 0; // dummy $0", "=r", [], dtype=gl.int32, is_pure=False, pack=1
    )


@gluon.jit
def _consume(
    x, held, a, b, staging, a_full, a_empty, b_full, b_empty, stored, order, c,
    start, pairs, programs, layers,
    WHO: gl.constexpr, SCRAMBLE_1: gl.constexpr, SCRAMBLE_2: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    layout: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 128, 32]
    )
    turn = 0  # block-layers so far
    done = 0  # column blocks so far
    for pair in range(gl.program_id(0), pairs, programs):
        for step in range(2 * layers):
            half = step & 1
            row = (2 * pair + half) * BLOCK
            addend = gl.load(c + (step >> 1)).to(gl.uint32, bitcast=True)
            for n in range(WHO, PARTS, 2):
                first = (turn * PARTS + n) * PARTS
                mbarrier.wait(order.index(WHO), (done & 1) ^ (1 - WHO))
                acc = gl.zeros([BLOCK, BLOCK], gl.int32, layout)
                for k in range(PARTS):
                    tile = first + k
                    stage = tile % STAGES
                    mbarrier.wait(a_full.index(k), turn & 1)
                    mbarrier.wait(b_full.index(stage), (tile // STAGES) & 1)
                    acc = warpgroup_mma(
                        a.index(k), b.index(stage).permute((1, 0)), acc,
                        use_acc=k > 0, is_async=True,
                    )  # fmt: skip
                    acc = warpgroup_mma_wait(1, deps=(acc,))
                    if k > 0:
                        mbarrier.arrive(b_empty.index((tile - 1) % STAGES))
                        if n >= PARTS - 2:
                            mbarrier.arrive(a_empty.index(k - 1))
                mbarrier.arrive(order.index(1 - WHO))
                done += 1
                acc = warpgroup_mma_wait(0, deps=(acc,))
                mbarrier.arrive(b_empty.index((first + PARTS - 1) % STAGES))
                if n >= PARTS - 2:
                    mbarrier.arrive(a_empty.index(PARTS - 1))
                h = acc.to(gl.uint32, bitcast=True) * SCRAMBLE_1 + addend
                h = (h ^ (h >> 15)) * SCRAMBLE_2
                top = (h >> 24).to(gl.uint8).to(gl.int8, bitcast=True)  # (BLOCK, BLOCK)
                _stores_done()
                if n == WHO and turn > 0:  # the store before was the last of the block before
                    mbarrier.arrive(stored.index(1 - half))
                staging.store(top)
                fence_async_shared()
                if step >= 2 * layers - 2:
                    tma.async_copy_shared_to_global(held, [start + row, n * BLOCK], staging)
                else:
                    tma.async_copy_shared_to_global(x, [row, n * BLOCK], staging)
            turn += 1
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["start", "pairs", "programs", "layers"])
def all_layers(
    x, weights, held, c, start, pairs, programs, layers,
    SCRAMBLE_1: gl.constexpr, SCRAMBLE_2: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """X_T of all rows of x, written to held from row start on; x is used up.

    x: descriptor int8 (R, N), X_0; held: descriptor int8 (rows, N); rows past its end are dropped;
    weights: descriptor int8 (N out, N in); all by (128, 128). c: int32 (layers,); pairs: of row
    blocks, R / 256, walked by `programs` programs.
    """
    tile: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=8, rank=2)
    a = gl.allocate_shared_memory(gl.int8, [PARTS, BLOCK, BLOCK], tile)
    b = gl.allocate_shared_memory(gl.int8, [STAGES, BLOCK, BLOCK], tile)
    staging = gl.allocate_shared_memory(gl.int8, [2, BLOCK, BLOCK], tile)
    bar: gl.constexpr = mbarrier.MBarrierLayout()
    a_full = gl.allocate_shared_memory(gl.int64, [PARTS, 1], bar)
    a_empty = gl.allocate_shared_memory(gl.int64, [PARTS, 1], bar)
    b_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    b_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], bar)
    stored = gl.allocate_shared_memory(gl.int64, [2, 1], bar)
    order = gl.allocate_shared_memory(gl.int64, [2, 1], bar)
    for i in gl.static_range(PARTS):
        mbarrier.init(a_full.index(i), count=1)
        mbarrier.init(a_empty.index(i), count=2)
    for i in gl.static_range(2):
        mbarrier.init(stored.index(i), count=2)
        mbarrier.init(order.index(i), count=1)
    for i in gl.static_range(STAGES):
        mbarrier.init(b_full.index(i), count=1)
        mbarrier.init(b_empty.index(i), count=1)
    gl.warp_specialize(
        [
            (_consume, (x, held, a, b, staging.index(0), a_full, a_empty, b_full, b_empty, stored,
                        order, c, start, pairs, programs, layers, 0, SCRAMBLE_1, SCRAMBLE_2,
                        STAGES)),
            (_consume, (x, held, a, b, staging.index(1), a_full, a_empty, b_full, b_empty, stored,
                        order, c, start, pairs, programs, layers, 1, SCRAMBLE_1, SCRAMBLE_2,
                        STAGES)),
            (_produce, (x, weights, a, b, a_full, a_empty, b_full, b_empty, stored, pairs,
                        programs, layers, STAGES)),
        ],
        [4, 1],
        [216, 24],
    )  # fmt: skip
