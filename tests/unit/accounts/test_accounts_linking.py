"""Links, coldkey proofs and recovery: each signature once, each hotkey at one account."""

import pytest
from bittensor_core import Keypair

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import ChutesError
from chutes_core.validator.accounts.linking import Linking
from chutes_core.validator.domain.accounts import DEVELOPER, FREE, Account
from chutes_core.validator.store.database import Store

VALIDATOR = Keypair.create_from_uri("//V//hotkey")
COLD = Keypair.create_from_uri("//Cold")
NEW = Keypair.create_from_uri("//New//hotkey")


class FakeChain:
    """Who holds what."""

    def __init__(self):
        self.permits = {VALIDATOR.ss58_address}
        self.owner = "nobody"
        self.owners = {}

    def has_permit(self, hotkey_ss58):
        return hotkey_ss58 in self.permits

    def owns_subnet(self, hotkey_ss58):
        return hotkey_ss58 == self.owner

    def owner_of(self, hotkey_ss58):
        return self.owners.get(hotkey_ss58)


@pytest.fixture
def world(tmp_path):
    class World:
        clock = ManualClock()

    World.told = []
    World.chain = FakeChain()
    World.store = Store(tmp_path / "v.db", clock=World.clock)
    World.linking = Linking(
        World.store,
        World.clock,
        World.chain,
        validator_ss58="this-validator",
        roles_changed=lambda user, roles: World.told.append((user, roles)),
    )
    for name in ("alice", "bob"):
        World.store.accounts.create(
            lambda n, name=name: Account(
                name, n, name, f"hot-{name}", COLD.ss58_address, f"p{n}", f"d{n}", "0", 1
            )
        )
    World.get = staticmethod(World.store.accounts.get)
    yield World
    World.store.close()


def sign(key, text):
    return bytes(key.sign(text.encode())).hex()


def link(world, name="alice", *, key=VALIDATOR, kind="validator", signature=None):
    signature = signature or sign(key, f"{key.ss58_address}:{name}")
    return world.linking.link(world.get(name), kind, key.ss58_address, signature)


def refused(code, call, *arguments, **named):
    with pytest.raises(ChutesError) as caught:
        call(*arguments, **named)
    assert caught.value.code == code


def test_a_permitted_validator_links_and_is_free_and_developer(world):
    """The roles come with the link and go with the permit, each epoch anew."""
    link(world)
    assert world.get("alice").roles == {DEVELOPER, FREE}
    assert world.linking.recheck() == 0
    world.chain.permits.clear()
    assert world.linking.recheck() == 1
    assert world.get("alice").roles == frozenset()
    world.chain.permits.add(VALIDATOR.ss58_address)
    assert world.linking.recheck() == 1
    assert world.get("alice").roles == {DEVELOPER, FREE}


def test_a_link_signature_is_never_accepted_twice(world):
    """Neither for another link, nor after the link ended, nor in another spelling."""
    signature = sign(VALIDATOR, f"{VALIDATOR.ss58_address}:alice")
    link(world, signature=signature)
    world.linking.unlink(world.get("alice"), VALIDATOR.ss58_address)
    assert world.get("alice").roles == frozenset()
    for again in (signature, f"0x{signature}", signature.upper()):
        refused("signature_used", link, world, signature=again)
    assert world.linking.of(world.get("alice")) == ()
    link(world)


def test_one_hotkey_is_linked_to_one_account(world):
    """The second account gets 409 and may not end the first one's link."""
    link(world)
    refused("hotkey_linked", link, world, "bob")
    address = VALIDATOR.ss58_address
    refused("no_such_link", world.linking.unlink, world.get("bob"), address)


def test_the_chain_and_the_signature_decide(world):
    """No permit, not the owner, a signature for another user: each its own code."""
    refused("no_validator_permit", link, world, key=NEW)
    refused("not_subnet_owner", link, world, kind="subnet_owner")
    wrong = sign(VALIDATOR, f"{VALIDATOR.ss58_address}:bob")
    refused("bad_signature", link, world, signature=wrong)
    refused("bad_signature", link, world, signature="zz")
    world.chain.owner = NEW.ss58_address
    assert link(world, key=NEW, kind="subnet_owner").kind == "subnet_owner"


def prove(world, key=COLD, name="alice", expiry=None):
    expiry = expiry or world.clock.now_s() + 60
    account = world.get(name)
    text = world.linking.proof_text(account, key.ss58_address, expiry)
    world.linking.prove(account, key.ss58_address, expiry, sign(key, text))


def recover(world, key=COLD, name="alice", hotkey=NEW):
    expiry = world.clock.now_s() + 60
    account = world.get(name)
    text = world.linking.recovery_text(account, key.ss58_address, hotkey.ss58_address, expiry)
    return world.linking.recover(
        name, hotkey.ss58_address, key.ss58_address, expiry, sign(key, text)
    )


def test_a_claimed_coldkey_of_another_is_worth_nothing(world):
    """Who registered with it cannot use it, and its owner cannot take the account."""
    assert world.get("alice").coldkey_proven == ""
    refused("not_recoverable", recover, world)
    mine = Keypair.create_from_uri("//Mine")
    prove(world, mine)
    assert world.get("alice").coldkey_ss58 == mine.ss58_address
    refused("not_recoverable", recover, world)
    refused("coldkey_proven", prove, world)


def test_a_proven_coldkey_recovers_the_account_and_ends_its_keys(world):
    """The new hotkey is the account's; a second recovery with the signature is refused."""
    prove(world)
    account, fingerprint = recover(world)
    assert account.hotkey_ss58 == NEW.ss58_address
    assert len(fingerprint) == 48
    assert world.store.accounts.by_hotkey("hot-alice") is None
    refused("hotkey_taken", recover, world)


def test_a_proof_is_for_one_validator_one_account_one_day(world):
    """Expired, too long, for another account, or used before: refused."""
    now_s = world.clock.now_s()
    refused("proof_expired", prove, world, expiry=now_s)
    refused("proof_expired", prove, world, expiry=now_s + 86_401)
    text = world.linking.proof_text(world.get("bob"), COLD.ss58_address, now_s + 60)
    signature = sign(COLD, text)
    arguments = (COLD.ss58_address, now_s + 60, signature)
    refused("bad_signature", world.linking.prove, world.get("alice"), *arguments)
    world.linking.prove(world.get("bob"), *arguments)
    refused("signature_used", world.linking.prove, world.get("bob"), *arguments)


def test_the_chain_proves_the_owner_of_the_hotkey(world):
    """Owner[hotkey] is a proof, and corrects a claim."""
    refused("hotkey_not_owned", world.linking.prove_by_chain, world.get("alice"))
    world.chain.owners["hot-alice"] = NEW.ss58_address
    assert world.linking.prove_by_chain(world.get("alice")) == NEW.ss58_address
    assert world.get("alice").coldkey_proven == "chain"
