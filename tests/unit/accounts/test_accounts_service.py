import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import ChutesError
from chutes_core.validator.accounts.service import MAX_KEYS, Accounts
from chutes_core.validator.domain.accounts import Scope
from chutes_core.validator.store.database import Store

COLD = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


class Book:
    def payment(self, number):
        return f"p{number}"

    def deposit(self, number):
        return f"d{number}"


@pytest.fixture
def accounts(tmp_path):
    store = Store(tmp_path / "v.db", clock=ManualClock())
    yield Accounts(store, ManualClock(), Book())
    store.close()


@pytest.fixture
def alice(accounts):
    return accounts.register(hotkey_ss58="h", username="alice", coldkey_ss58=COLD).account


def test_coldkey_must_be_an_address(accounts):
    """A coldkey that is no SS58 address is refused."""
    with pytest.raises(ChutesError, match="bad_coldkey"):
        accounts.register(hotkey_ss58="h", username="alice", coldkey_ss58=COLD[:-1] + "Z")


def test_secrets_are_not_in_a_repr(accounts, alice):
    """Neither fingerprint nor key text gets into a log by printing the record."""
    registered = accounts.register(hotkey_ss58="h2", username="bob", coldkey_ss58=COLD)
    new = accounts.create_key(alice, name="n", admin=True, scopes=())
    assert registered.fingerprint not in repr(registered)
    assert new.text not in repr(new)


def test_key_proves_its_owner_and_carries_its_scopes(accounts, alice):
    """The caller behind a key may do what the key's scopes say, and no more."""
    one, other = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "12")
    scopes = (Scope("chutes", one, "invoke"),)
    new = accounts.create_key(alice, name="n", admin=False, scopes=scopes)
    caller = accounts.with_key(new.text)
    assert caller.account == alice
    assert caller.may("chutes", "invoke", one)
    assert not caller.may("chutes", "invoke", other)
    assert not caller.may("chutes", "invoke")
    with pytest.raises(ChutesError, match="scope"):
        caller.require_admin()
    assert accounts.key(alice, new.key.key_id).last_used_at_s is not None


def test_admin_key_needs_no_scopes_and_drops_them(accounts, alice):
    """An admin key may do all that its owner may."""
    scopes = (Scope("images"),)
    new = accounts.create_key(alice, name="n", admin=True, scopes=scopes)
    caller = accounts.with_key(new.text)
    caller.require_admin()
    caller.require("chutes", "delete", "x")
    assert new.key.scopes == ()


def test_number_of_keys_is_bounded(accounts, alice):
    """An account cannot fill the store with keys; a deleted one makes room."""
    keys = [accounts.create_key(alice, name="n", admin=True, scopes=()) for _ in range(MAX_KEYS)]
    with pytest.raises(ChutesError, match="too_many_keys"):
        accounts.create_key(alice, name="n", admin=True, scopes=())
    accounts.delete_key(alice, keys[0].key.key_id)
    accounts.create_key(alice, name="n", admin=True, scopes=())


def test_users_are_found_by_id_and_name(accounts, alice):
    """Id and username both name a user."""
    assert accounts.find("alice") == accounts.find(alice.user_id) == alice
    with pytest.raises(ChutesError, match="no_such_user"):
        accounts.find("nobody")
