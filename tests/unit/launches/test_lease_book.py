"""What a validator makes of the leases that it hears of."""

import pytest
from bittensor_core import Keypair

from chutes_core.base.errors import Conflict, Forbidden, Unauthenticated
from chutes_core.validator.launches.leases import LeaseBook
from chutes_core.validator.store.database import Store
from chutes_core.wire.lease import Lease

MINER = Keypair.create_from_uri("//Miner")
US = Keypair.create_from_uri("//Us").ss58_address
THEM = Keypair.create_from_uri("//Them").ss58_address


@pytest.fixture
def book(tmp_path):
    store = Store(tmp_path / "v.sqlite")
    yield LeaseBook(store.leases, self_hotkey=US)
    store.close()


def lease(validator=US, first=10, last=20, gpu="GPU-1", keypair=MINER):
    return Lease.sign(
        keypair, gpu_uuid=gpu, validator_hotkey=validator, from_block=first, to_block=last
    )


def require(book, *leases, block=15, gpus=("GPU-1",)):
    book.require(leases, miner_hotkey=MINER.ss58_address, gpu_uuids=gpus, block=block)


def test_a_lease_to_us_that_covers_the_block_is_enough(book):
    """An honest request passes and is remembered."""
    require(book, lease())
    assert book.held(MINER.ss58_address, "GPU-1", 15)
    assert len(book.known(15)) == 1


@pytest.mark.parametrize(
    "offered", [[], [lease(THEM)], [lease(first=16)], [lease(last=14)], [lease(gpu="GPU-2")]]
)
def test_without_a_lease_to_us_now_there_is_no_launch(book, offered):
    """Nothing, somebody else's, too early, too late, another GPU: no_lease."""
    with pytest.raises(Forbidden) as caught:
        require(book, *offered)
    assert caught.value.code == "no_lease"


def test_a_forged_lease_is_refused_and_not_remembered(book):
    """The signature is the miner's or it is nothing."""
    forged = lease().model_copy(update={"to_block": 99})
    with pytest.raises(Unauthenticated):
        require(book, forged)
    assert book.learn([forged]) == 0
    assert book.known(0) == []


def test_a_second_lease_heard_from_anyone_is_a_conflict(book):
    """Whoever passes it on: the miner signed both."""
    require(book, lease())
    assert book.learn([lease(THEM, 20, 30)]) == 1
    assert book.conflicted(MINER.ss58_address, "GPU-1", 15)
    with pytest.raises(Conflict) as caught:
        require(book, lease())
    assert caught.value.code == "lease_conflict"


def test_leases_that_follow_each_other_are_no_conflict(book):
    """One block apart is apart."""
    require(book, lease())
    book.learn([lease(THEM, 21, 30)])
    assert not book.conflicted(MINER.ss58_address, "GPU-1", 15)


def test_a_miner_cannot_speak_of_anothers_gpus(book):
    """From a miner's inventory only its own leases are kept."""
    other = Keypair.create_from_uri("//Other")
    assert book.learn([lease(keypair=other)], miner_hotkey=MINER.ss58_address) == 0
    assert book.learn([lease(keypair=other)]) == 1
