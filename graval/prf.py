"""The arithmetic of graval, exact on every device: rows, queries, tags. The slow reference.

n = 1024; all words wrap at 2^32. A row is M[i] = X_T with

    X_0  from two hashes of i                           int8[n]
    y    = X_t W                                        int32[n], |y| <= n * 128 * 128 = 2^24
    X_t+1 = int8(scramble(y, c[t]) >> 24)               int8[n]

Invariant: every partial sum of a product of int8 vectors of length 1024 is an integer of at most
2^24, so int32 tensor cores in any order and a float32 SGEMM (24 bits of significand) give the
same y. That is why n = 1024, and why this module uses float32 and never int64.

A tag mixes four linear lanes of a row non-linearly: with one lane a cheater keeps the high bits of
each byte and filters by approximate products (docs/graval.md, section 2).

Constants: `mix` is the lowbias32 finaliser of Chris Wellons' hash-prospector; C1 and C2 are the
odd primes of xxHash32; the scramble's two multipliers are odd and were chosen with the prototype.
Backends must equal this module bit by bit; `graval.golden` freezes vectors of it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

N = 1024
ROW_BYTES = N
LANES = 4
TAG_BYTES = 8
DIGEST_BYTES = 32

C1 = 0x9E3779B1
C2 = 0x85EBCA77
SCRAMBLE_1 = 0x2C1B3C6D
SCRAMBLE_2 = 0x297A2D39

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I8 = NDArray[np.int8]
F32 = NDArray[np.float32]

_CHUNK_ROWS = 512  # 2 MiB of float32 a chunk: the layers stay in a CPU's cache


def mix(x: U32) -> U32:
    """lowbias32 of each word; x is left as it is."""
    x = x ^ (x >> np.uint32(16))
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def shake(domain: str, data: bytes, size_bytes: int) -> bytes:
    """SHAKE128 of a domain and data, for public expansion of a seed or key."""
    return hashlib.shake_128(f"graval/1 {domain}\0".encode() + data).digest(size_bytes)


def digest(domain: str, *parts: bytes) -> bytes:
    """BLAKE2b-256 over a domain and length-prefixed parts."""
    state = hashlib.blake2b(f"graval/1 {domain}\0".encode(), digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


@dataclass(frozen=True)
class FillKey:
    """What a seed expands to: the words and the weights of the row function.

    k: uint32 (4,); c: uint32 (layers,); weights_out_in: int8 (N, N), row o holds the N inputs of
    output o (W transposed, as tensor cores want it).
    """

    k: U32
    c: U32
    weights_out_in: I8

    @property
    def layers(self) -> int:
        """T, the number of layers."""
        return len(self.c)


def fill_key(seed: bytes, layers: int) -> FillKey:
    """Expand a seed: 1 MiB of weights and the few words of the row function."""
    words = np.frombuffer(shake("words", seed, 4 * (4 + layers)), dtype="<u4").astype(np.uint32)
    weights = np.frombuffer(shake("weights", seed, N * N), dtype=np.int8).reshape(N, N)
    return FillKey(k=words[:4], c=words[4:], weights_out_in=weights)


class RowFunction:
    """F_T(seed, i): computes any rows of one fill. Holds W as float32 (4 MiB)."""

    def __init__(self, key: FillKey) -> None:
        self.key = key
        # (N out, N in) -> (N in, N out), a view: BLAS takes it as transposed
        self._weights: F32 = key.weights_out_in.astype(np.float32).T

    def rows(self, indices: Sequence[int] | NDArray[Any]) -> I8:
        """The rows of these indices: int8 (m, N), row-major."""
        index = np.asarray(indices, dtype=np.uint32)
        out = np.empty((len(index), N), dtype=np.int8)
        self.rows_into(index, out)
        return out

    def rows_into(self, index: U32, out: I8) -> None:
        """Write the rows of uint32 indices (m,) into out: int8 (m, N)."""
        for at in range(0, len(index), _CHUNK_ROWS):
            part = slice(at, at + _CHUNK_ROWS)
            out[part] = self._chunk(index[part])

    def _chunk(self, index: U32) -> I8:
        x = first_layer(self.key.k, index)  # (m, N) int8
        for t in range(self.key.layers):
            y = x.astype(np.float32) @ self._weights  # (m, N) @ (N, N) -> (m, N), exact integers
            x = requantise(y, self.key.c[t])  # (m, N) int8
        return x


def first_layer(k: U32, index: U32) -> I8:
    """X_0 of each index: int8 (m, N), from two independent hashes of the index."""
    ra = mix(index * np.uint32(C1) + k[0])[:, None]  # (m, 1)
    rb = mix((index ^ k[2]) * np.uint32(C2) + k[1])[:, None]  # (m, 1)
    column = np.arange(N // 4, dtype=np.uint32) * np.uint32(C2) + k[3]  # (N / 4,)
    words = mix(mix(column[None, :] + ra) ^ rb)  # (m, N / 4)
    return words.astype("<u4").view(np.int8)  # (m, N), byte 0 of a word is its low byte


def requantise(y: F32, c: np.uint32) -> I8:
    """int8 of the top byte of a scramble of the integers y: (m, N) -> (m, N)."""
    h = y.astype(np.int32).view(np.uint32)
    h *= np.uint32(SCRAMBLE_1)
    h += c
    h ^= h >> np.uint32(15)
    h *= np.uint32(SCRAMBLE_2)
    return (h >> np.uint32(24)).astype(np.uint8).view(np.int8)


@dataclass(frozen=True)
class Query:
    """What a stage's key expands to.

    lanes: int8 (LANES, N); a: uint32 (2, LANES); masks: uint64 (slots,), one pad for each sent tag.
    """

    lanes: I8
    a: U32
    masks: U64


def query(key: bytes, slots: int) -> Query:
    """Expand a stage's key for so many tag slots."""
    lanes = np.frombuffer(shake("lanes", key, LANES * N), dtype=np.int8).reshape(LANES, N)
    a = np.frombuffer(shake("offsets", key, 4 * 2 * LANES), dtype="<u4").astype(np.uint32)
    masks = np.frombuffer(shake("masks", key, TAG_BYTES * slots), dtype="<u8").astype(np.uint64)
    return Query(lanes=lanes, a=a.reshape(2, LANES), masks=masks)


def row_tags(asked: Query, rows: I8) -> U64:
    """The unmasked 64-bit tag of each row: int8 (m, N) -> uint64 (m,)."""
    lanes = asked.lanes.astype(np.float32).T  # (N, LANES)
    sums = rows.astype(np.float32) @ lanes  # (m, LANES), exact integers
    words = sums.astype(np.int32).view(np.uint32)
    high_low = [
        mix(words + asked.a[h][None, :]).sum(axis=1, dtype=np.uint32).astype(np.uint64)  # (m,)
        for h in (0, 1)
    ]
    tags: U64 = (high_low[1] << np.uint64(32)) | high_low[0]
    return tags


def tags_to_bytes(tags: U64) -> bytes:
    """Tags as they travel: 8 bytes each, little-endian."""
    return tags.astype("<u8").tobytes()


def tags_from_bytes(data: bytes) -> U64:
    """The inverse of `tags_to_bytes`; the length must be a multiple of 8."""
    return np.frombuffer(data, dtype="<u8").astype(np.uint64)


def next_key(key: bytes, indices: Sequence[int] | NDArray[Any], rows: I8) -> bytes:
    """The key after a stage: a hash of the key and of each found index and row, ascending.

    Args:
        key: the stage's key, 32 bytes.
        indices: distinct row indices, ascending (m,).
        rows: int8 (m, N), in the same order.
    """
    parts = [
        int(i).to_bytes(8, "big") + row.tobytes() for i, row in zip(indices, rows, strict=True)
    ]
    return digest("stage", key, *parts)


def answer_digest(chain_end: bytes, seed: bytes, leg: bytes) -> bytes:
    """The 32-byte answer to a leg: the chain's end, bound to the seed and to the leg as received.

    Binding the leg's bytes makes the answer a statement about the whole transcript: a leg that was
    changed on its way, even in a decoy, has another answer.
    """
    return digest("answer", chain_end, seed, leg)
