from dataclasses import replace

import pytest

from chutes_core.base.errors import Conflict, NotFound
from chutes_core.validator.domain.accounts import ApiKey, Scope


def test_accounts_get_consecutive_numbers_and_are_found(store, new_account):
    """Each account has the next number and is found by all its names."""
    first = store.accounts.create(new_account)
    second = store.accounts.create(new_account)
    assert (first.number, second.number) == (1, 2)
    for found in (
        store.accounts.get(first.user_id),
        store.accounts.by_hotkey(first.hotkey_ss58),
        store.accounts.by_username(first.username),
        store.accounts.by_payment_address(first.payment_address),
    ):
        assert found == first
    assert store.accounts.all() == (first, second)
    assert store.accounts.get("nobody") is None


def test_failed_creation_uses_no_number(store, new_account):
    """A refused account leaves the next number to the next one."""
    store.accounts.create(lambda n: new_account(n, "bob"))
    with pytest.raises(Conflict, match="username_taken"):
        store.accounts.create(lambda n: new_account(n, "bob"))
    with pytest.raises(Conflict, match="hotkey_taken"):
        store.accounts.create(lambda n: replace(new_account(n, "eve"), hotkey_ss58="hot-bob"))
    assert store.accounts.create(lambda n: new_account(n, "carol")).number == 2


def test_roles_are_replaced(store, new_account):
    """Roles are a set that is written as a whole."""
    account = store.accounts.create(new_account)
    store.accounts.set_roles(account.user_id, ["free"])
    assert store.accounts.get(account.user_id).roles == {"free"}
    with pytest.raises(NotFound):
        store.accounts.set_roles("nobody", [])


def test_keys_round_trip_and_die(store, new_account):
    """A key is found by its hash until it is revoked, and its record stays."""
    owner = store.accounts.create(new_account)
    scopes = (Scope("chutes", "x", "invoke"), Scope("images"))
    key = ApiKey("k1", owner.user_id, "n", "hash", False, scopes, 5)
    store.keys.insert(key)
    assert store.keys.by_secret("hash") == key
    assert store.keys.all_live() == store.keys.by_owner(owner.user_id) == (key,)
    store.keys.touch("k1", 50)
    store.keys.touch("k1", 40)
    assert store.keys.get("k1").last_used_at_s == 50
    assert store.keys.revoke("k1", 60)
    assert not store.keys.revoke("k1", 61)
    assert store.keys.by_secret("hash") is None
    assert store.keys.all_live() == ()
    assert store.keys.get("k1").revoked_at_s == 60


def test_nonces_are_taken_once_even_after_a_restart(open_store):
    """A replay is seen after the validator has restarted."""
    store = open_store()
    assert store.nonces.check_and_store("hot", "1", 2_000_000_000)
    assert not store.nonces.check_and_store("hot", "1", 2_000_000_000)
    assert store.nonces.check_and_store("other", "1", 2_000_000_000)
    assert not open_store().nonces.check_and_store("hot", "1", 2_000_000_000)


def test_expired_nonces_are_forgotten(store, clock):
    """Nonces go once their time has passed, never before."""
    now_s = clock.now_s()
    store.nonces.check_and_store("hot", "short", now_s + 10)
    store.nonces.check_and_store("hot", "long", now_s + 1_000)
    clock.advance(100)
    store.nonces.check_and_store("hot", "new", clock.now_s() + 10)
    assert not store.nonces.check_and_store("hot", "long", now_s + 1_000)
    assert store.nonces.check_and_store("hot", "short", now_s + 1_000)
