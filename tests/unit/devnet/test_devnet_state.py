"""State with history, and nested transactions on top."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chutes_core.base.errors import NotFound
from chutes_core.devnet.state import Overlay, VersionedStore

keys = st.sampled_from([b"a", b"ab", b"abc", b"b", b"ba"])
changes = st.dictionaries(keys, st.none() | st.binary(max_size=3), max_size=4)


@given(st.lists(changes, min_size=1, max_size=20), st.integers(1, 6))
def test_every_kept_height_reads_as_it_was(blocks, kept):
    """Values and key listings at old heights never change until they are pruned."""
    store = VersionedStore(kept)
    model, history = {}, []
    for height, block in enumerate(blocks):
        store.commit(height, block)
        for key, value in block.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        history.append(dict(model))
    for height, expected in enumerate(history):
        if height < store.oldest:
            with pytest.raises(NotFound):
                store.at(height)
            continue
        view = store.at(height)
        assert {key: view.get(key) for key in expected} == expected
        for prefix in (b"", b"a", b"ab", b"b", b"c"):
            assert list(view.keys(prefix)) == sorted(k for k in expected if k.startswith(prefix))
        assert list(view.keys(b"a", b"ab")) == sorted(
            k for k in expected if k.startswith(b"a") and k > b"ab"
        )


def test_pruning_forgets_dead_keys():
    """A key deleted before the oldest kept height takes no room any more."""
    store = VersionedStore(2)
    store.commit(0, {b"gone": b"1", b"kept": b"1"})
    store.commit(1, {b"gone": None})
    store.commit(2, {})
    store.commit(3, {})
    assert list(store.at(3).keys(b"")) == [b"kept"]
    assert b"gone" not in store._heights


def test_beyond_the_head_there_is_no_state():
    """A height that does not exist is told apart from one that was discarded."""
    store = VersionedStore(1)
    store.commit(0, {})
    store.commit(1, {})
    with pytest.raises(NotFound) as beyond:
        store.at(2)
    with pytest.raises(NotFound) as pruned:
        store.at(0)
    assert (beyond.value.code, pruned.value.code) == ("no_such_block", "state_discarded")


def test_transactions_nest():
    """An inner rollback keeps the outer changes; an inner commit joins them."""
    store = VersionedStore()
    store.commit(0, {b"a": b"0", b"b": b"0"})
    overlay = Overlay(store.at(0))
    overlay.begin()
    overlay.set(b"a", b"1")
    overlay.begin()
    overlay.set(b"a", None)
    overlay.set(b"c", b"2")
    assert list(overlay.keys(b"")) == [b"b", b"c"]
    overlay.rollback()
    assert overlay.get(b"a") == b"1"
    overlay.begin()
    overlay.set(b"b", None)
    overlay.commit()
    overlay.commit()
    assert overlay.changes() == {b"a": b"1", b"b": None}
    assert store.at(0).get(b"a") == b"0"
