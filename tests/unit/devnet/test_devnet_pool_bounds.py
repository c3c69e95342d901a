"""The devnet's pool takes so many extrinsics, of one signer and in all."""

from types import SimpleNamespace

import pytest

from chutes_core.devnet.extrinsics import TransactionRefused
from chutes_core.devnet.pool import MAX_POOLED, MAX_POOLED_PER_SIGNER, Pool


def add(pool, signer, nonce):
    extrinsic = SimpleNamespace(
        hash=f"{signer}/{nonce}".encode(), signer=signer, nonce=nonce, tip=0
    )
    return pool.add(extrinsic, expires=None, next_nonce=0, watcher=None)


def test_one_signer_cannot_fill_the_pool():
    """Its next extrinsic is dropped at once; another signer's is taken."""
    pool = Pool()
    for nonce in range(MAX_POOLED_PER_SIGNER):
        add(pool, "a", nonce)
    with pytest.raises(TransactionRefused) as caught:
        add(pool, "a", MAX_POOLED_PER_SIGNER)
    assert (caught.value.code, caught.value.message) == (1016, "Immediately Dropped")
    add(pool, "b", 0)


def test_a_full_pool_takes_no_more():
    """Whoever asks; what leaves makes room."""
    pool = Pool()
    first = add(pool, "0", 0)
    for number in range(1, MAX_POOLED):
        add(pool, str(number // MAX_POOLED_PER_SIGNER), number)
    with pytest.raises(TransactionRefused) as caught:
        add(pool, "late", 0)
    assert caught.value.code == 1016
    pool.remove(first)
    add(pool, "late", 0)
