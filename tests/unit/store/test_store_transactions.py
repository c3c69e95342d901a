import threading

import pytest

from chutes_core.base.errors import Conflict, Invalid, Unavailable
from chutes_core.validator.domain.accounts import ApiKey
from chutes_core.validator.store.migrations import migrations


def write_and_fail(store, name):
    with store.transaction():
        store.cursors.set(name, 1)
        raise KeyError


def write_nested_and_fail(store, name):
    with store.transaction():
        with store.transaction():
            store.cursors.set(name, 1)
        raise KeyError


def test_what_a_failed_block_wrote_is_gone(store):
    """An exception undoes the whole transaction."""
    with pytest.raises(KeyError):
        write_and_fail(store, "a")
    assert store.cursors.get("a") is None


def test_nested_block_joins_and_fails_alone(store):
    """A nested block that fails takes back only its own writes when the outer one goes on."""
    with store.transaction():
        store.cursors.set("outer", 1)
        with pytest.raises(KeyError):
            write_and_fail(store, "inner")
        store.cursors.set("after", 1)
    assert [store.cursors.get(name) for name in ("outer", "inner", "after")] == [1, None, 1]


def test_outer_failure_undoes_the_nested_block(store):
    """A nested block that succeeded is undone with the outer one."""
    with pytest.raises(KeyError):
        write_nested_and_fail(store, "inner")
    assert store.cursors.get("inner") is None


def test_committed_records_survive_a_restart(open_store):
    """A commit is there when the file is opened again, and migrations run once."""
    store = open_store()
    store.cursors.set("a", 5)
    with store.transaction(durable=True):
        store.cursors.set("b", 6)
    again = open_store()
    assert (again.cursors.get("a"), again.cursors.get("b")) == (5, 6)


def test_durable_block_cannot_join_one_that_is_not(store):
    """A promise to sync cannot be kept inside a block that does not."""
    with pytest.raises(RuntimeError), store.transaction(), store.transaction(durable=True):
        pass


def test_threads_wait_for_each_other(store):
    """Increments of many threads are never lost: a transaction belongs to one thread."""

    def add():
        for _ in range(50):
            with store.transaction():
                store.cursors.set("n", (store.cursors.get("n") or 0) + 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.cursors.get("n") == 200


def test_integer_beyond_64_bits_is_a_typed_error(store):
    """SQLite's limits leave the room as Invalid, not as a foreign error."""
    with pytest.raises(Invalid):
        store.cursors.set("a", 2**64)


def test_closed_store_is_unavailable(open_store):
    """A store that cannot be used says so with a typed error."""
    store = open_store()
    store.close()
    with pytest.raises(Unavailable):
        store.cursors.get("a")


def test_every_migration_has_its_own_name():
    """Migrations are told apart by name and stand in order."""
    names = [migration.name for migration in migrations._migrations]
    assert names == sorted(set(names))


def test_unknown_reference_is_a_conflict(store, new_account):
    """A foreign key that leads nowhere is refused."""
    with pytest.raises(Conflict):
        store.keys.insert(ApiKey("k", "nobody", "n", "0", True, (), 1))
