"""What a validator makes of the leases that it hears of."""

import pytest
from bittensor_core import Keypair

from chutes_core.base.errors import Conflict, Forbidden, Invalid, Unauthenticated
from chutes_core.validator.launches.leases import DAY_BLOCKS, MAX_FORGED, Learned, LeaseBook
from chutes_core.validator.launches.ports import Miner
from chutes_core.validator.store.database import Store
from chutes_core.wire.lease import Lease, place_of

MINER = Keypair.create_from_uri("//Miner")
OTHER = Keypair.create_from_uri("//Other")
US = Keypair.create_from_uri("//Us").ss58_address
THEM = Keypair.create_from_uri("//Them").ss58_address


class Chain:
    """Two registered miners, at a block of the test's choice."""

    devnet = True

    def __init__(self):
        self.block = 0

    def miner(self, hotkey):
        registered = (MINER.ss58_address, OTHER.ss58_address)
        return Miner(hotkey, "cold", 1, "") if hotkey in registered else None


@pytest.fixture
def book(tmp_path):
    store = Store(tmp_path / "v.sqlite")
    yield LeaseBook(store.leases, Chain(), self_hotkey=US, per_miner=8)
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
    assert book.learn([forged]) == Learned(kept=0, forged=1)
    assert book.known(0) == ()


def test_a_second_lease_heard_from_anyone_is_a_conflict(book):
    """Whoever passes it on: the miner signed both."""
    require(book, lease())
    assert book.learn([lease(THEM, 20, 30)]).kept == 1
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
    assert book.learn([lease(keypair=OTHER)], miner_hotkey=MINER.ss58_address).kept == 0
    assert book.learn([lease(keypair=OTHER)]).kept == 1


def test_leases_of_strangers_and_leases_that_are_over_are_not_kept(book):
    """Who is not registered cannot fill the store, nor can the past."""
    assert book.learn([lease(keypair=Keypair.create_from_uri("//Nobody"))]) == Learned(0, 0)
    book._chain.block = 21
    assert book.learn([lease()]) == Learned(0, 0)


def test_a_list_of_forgeries_is_not_read_to_its_end(book):
    """What comes after too many of them is not looked at."""
    forged = lease().model_copy(update={"to_block": 99})
    assert book.learn([forged] * MAX_FORGED + [lease()]) == Learned(1, MAX_FORGED)
    assert book.learn([forged] * 50 + [lease(gpu="GPU-2")]) == Learned(0, MAX_FORGED + 1)


def test_a_miner_that_signs_too_many_leases_gets_nothing_for_a_day(book):
    """A flood could hide the lease that shows a conflict; other miners are not touched."""
    many = [lease(gpu=f"GPU-{number}") for number in range(9)]
    assert book.learn(many).kept == 8
    assert len(book.known(15)) == 8
    with pytest.raises(Conflict) as caught:
        require(book, lease())
    assert caught.value.code == "too_many_leases"
    assert book.conflicted(MINER.ss58_address, "GPU-1", 15)
    assert not book.conflicted(OTHER.ss58_address, "GPU-1", 15)
    book._chain.block = DAY_BLOCKS + 21
    later = lease(first=DAY_BLOCKS, last=DAY_BLOCKS + 99)
    require(book, later, block=DAY_BLOCKS + 30)


def test_a_restart_is_no_way_around_the_bound_of_leases(book):
    """That a lease was left out is kept: the one that shows a conflict may be among those."""
    book.learn([lease(gpu=f"GPU-{number}") for number in range(9)])
    again = LeaseBook(book._store, book._chain, self_hotkey=US, per_miner=8)
    assert again.conflicted(MINER.ss58_address, "GPU-1", 15)
    assert not again.conflicted(OTHER.ss58_address, "GPU-1", 15)


def test_leases_come_in_pages_that_miss_none(book, monkeypatch):
    """Each page goes on after the last lease of the one before, over miners and GPUs."""
    monkeypatch.setattr("chutes_core.validator.launches.leases.LEASES_PAGE", 3)
    book.learn([lease(THEM, 21, 30), *(lease(gpu=f"GPU-{number}") for number in range(6))])
    book.learn([lease(keypair=OTHER)])
    seen, after = [], None
    while page := book.known(0, after=after):
        assert len(page) <= 3
        seen += page
        after = place_of(page[-1].cursor)
    assert len(seen) == len(set(seen)) == 8
    assert [one.place for one in seen] == sorted(one.place for one in seen)
    assert len(book.known(0, miner_hotkey=OTHER.ss58_address)) == 1


@pytest.mark.parametrize("cursor", ["", "a,b,c,1", "a,b,c,1,x", "a,b,c,-1,2", f"a,b,c,1,{10**30}"])
def test_a_cursor_that_names_no_place_is_refused(cursor):
    """Another form, or no blocks."""
    with pytest.raises(Invalid) as caught:
        place_of(cursor)
    assert caught.value.code == "bad_cursor"
