"""The arithmetic against an implementation in plain Python integers, and the golden vectors."""

import hashlib

import numpy as np
import pytest

from graval import golden, prf

MASK = 0xFFFFFFFF


def plain_mix(x):
    x &= MASK
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ x >> 16


def signed(byte):
    return byte - 256 if byte > 127 else byte


def plain_shake(domain, data, size):
    return hashlib.shake_128(b"graval/1 " + domain + b"\0" + data).digest(size)


def plain_row(seed, layers, i):
    """F_T(seed, i) by the formulas of the paper, in Python integers."""
    words = plain_shake(b"words", seed, 4 * (4 + layers))
    k = [int.from_bytes(words[4 * n : 4 * n + 4], "little") for n in range(4 + layers)]
    weights = plain_shake(b"weights", seed, 1024 * 1024)
    ra = plain_mix(i * 0x9E3779B1 + k[0])
    rb = plain_mix((i ^ k[2]) * 0x85EBCA77 + k[1])
    x = []
    for j in range(256):
        word = plain_mix(plain_mix(j * 0x85EBCA77 + k[3] + ra) ^ rb)
        x += [signed(b) for b in word.to_bytes(4, "little")]
    for t in range(layers):
        out = []
        for o in range(1024):
            column = memoryview(weights[1024 * o : 1024 * (o + 1)]).cast("b")
            y = sum(a * b for a, b in zip(x, column, strict=True))
            h = ((y & MASK) * 0x2C1B3C6D + k[4 + t]) & MASK
            h ^= h >> 15
            h = h * 0x297A2D39 & MASK
            out.append(signed(h >> 24))
        x = out
    return x


def plain_tag(key, row):
    """The unmasked 64-bit tag of a row, in Python integers."""
    lanes = memoryview(plain_shake(b"lanes", key, 4 * 1024)).cast("b")
    offsets = plain_shake(b"offsets", key, 32)
    tag = 0
    for h in (0, 1):
        total = 0
        for lane in range(4):
            s = sum(a * b for a, b in zip(row, lanes[1024 * lane :], strict=False))
            at = 4 * (4 * h + lane)
            total += plain_mix(s + int.from_bytes(offsets[at : at + 4], "little"))
        tag |= (total & MASK) << (32 * h)
    return tag


@pytest.mark.parametrize("index", [0, 77, (1 << 32) - 1])
def test_rows_and_tags_equal_plain_integers(index):
    """The float32 arithmetic yields exactly what Python integers yield."""
    seed, key = bytes(range(32)), bytes(range(32, 64))
    row = prf.RowFunction(prf.fill_key(seed, 2)).rows([index])
    assert row[0].tolist() == plain_row(seed, 2, index)
    assert int(prf.row_tags(prf.query(key, 1), row)[0]) == plain_tag(key, row[0].tolist())


def test_golden_vectors_hold_on_this_machine():
    """Every frozen vector is recomputed bit by bit, and none is missing."""
    assert golden.vectors() == golden.GOLDEN


def test_the_largest_sums_are_exact_in_float32():
    """Extreme rows reach 2^24 in magnitude and stay exact, in any order of summation."""
    least = np.full((1, prf.N), -128, dtype=np.int8)
    weights = np.full((prf.N, prf.N), -128, dtype=np.int8)
    y = least.astype(np.float32) @ weights.astype(np.float32).T
    assert (y.astype(np.int64) == 1 << 24).all()


def test_rows_do_not_depend_on_the_batch_they_are_computed_in():
    """A row computed alone equals the row computed among a thousand."""
    function = prf.RowFunction(prf.fill_key(bytes(32), 8))
    together = function.rows(range(1000))
    assert (function.rows([613])[0] == together[613]).all()


def test_every_tag_slot_has_its_own_pad():
    """Masks of a key differ from slot to slot, so equal tags never look equal on the wire."""
    assert len(set(prf.query(bytes(32), 64).masks.tolist())) == 64


def test_tag_bytes_round_trip():
    """Tags survive their wire form."""
    tags = np.asarray([0, 1, (1 << 64) - 1], dtype=np.uint64)
    assert (prf.tags_from_bytes(prf.tags_to_bytes(tags)) == tags).all()


def test_rows_look_incompressible():
    """The bytes of a fill are spread over all 256 values: at least 7.99 bits of entropy a byte."""
    rows = prf.RowFunction(prf.fill_key(b"s" * 32, 8)).rows(range(1024))
    share = np.bincount(rows.view(np.uint8).ravel(), minlength=256) / rows.size
    assert -(share * np.log2(share)).sum() > 7.99
