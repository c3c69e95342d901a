"""The book of leases: one GPU, one validator, whatever happens in between."""

import itertools

import pytest
from bittensor_core import Keypair
from hypothesis import given
from hypothesis import strategies as st

from chutes_core.base.errors import Unauthenticated
from chutes_core.miner.leases import MAX_LAUNCH_LEASES, LeaseBook
from chutes_core.miner.shares import share_gpus
from chutes_core.miner.store import MinerStore
from chutes_core.wire.lease import Lease

BLOCKS = 20
A, B, C = "validator-a", "validator-b", "validator-c"
KEY = Keypair.create_from_uri("//Miner")


class MemoryLeases:
    """The store's part that the book needs, in memory."""

    def __init__(self):
        self.kept = []

    def add_lease(self, lease):
        self.kept.append(lease)

    def leases(self, *, miner_hotkey, since_block=0):
        mine = [x for x in self.kept if x.miner_hotkey == miner_hotkey]
        return tuple(
            sorted((x for x in mine if x.to_block >= since_block), key=lambda x: x.from_block)
        )

    def forget_leases(self, *, before_block):
        self.kept = [x for x in self.kept if x.to_block >= before_block]


def conflicts(leases):
    return [p for p in itertools.combinations(leases, 2) if p[0].conflicts_with(p[1])]


def renew(book, block, *, stakes=None, gpus=("gpu-0",), busy=None, eager=frozenset()):
    return book.renew(block=block, gpus=gpus, stakes=stakes or {A: 1}, busy=busy or {}, eager=eager)


def test_first_lease_covers_the_block_and_is_signed(miner_key, store):
    """A free GPU is leased from now on, in the miner's name."""
    (lease,) = renew(LeaseBook(miner_key, store, lease_blocks=BLOCKS), 100)
    lease.check_signature()
    assert lease.covers(100)
    assert lease.to_block == 100 + BLOCKS - 1
    assert renew(LeaseBook(miner_key, MemoryLeases(), lease_blocks=300), 100)[0].to_block == 159
    assert lease.miner_hotkey == miner_key.ss58_address


def test_nothing_is_signed_twice(miner_key, store):
    """A second round in the same blocks signs nothing."""
    book = LeaseBook(miner_key, store, lease_blocks=BLOCKS)
    renew(book, 100)
    assert renew(book, 101) == ()


def test_a_launch_brings_the_next_lease_too(miner_key, store):
    """A validator that is a block ahead has the lease that holds there, and no other's."""
    book = LeaseBook(miner_key, store, lease_blocks=BLOCKS)
    (first,) = renew(book, 100)
    (second,) = renew(book, first.to_block - 2)
    renew(book, 100, gpus=("gpu-1",))
    assert book.covering(["gpu-0"], A, first.to_block) == (first,)
    assert book.with_next([first]) == (first, second)
    assert book.with_next([second]) == (second,)
    assert book.with_next([]) == ()


def test_the_next_lease_of_another_validator_stays_here(miner_key, store):
    """A launch tells a validator of no promise to another."""
    book = LeaseBook(miner_key, store, lease_blocks=BLOCKS)
    (first,) = renew(book, 100)
    renew(book, first.to_block - 2, stakes={B: 1})
    assert book.with_next([first]) == (first,)


def test_a_launch_takes_no_more_leases_than_fit(miner_key):
    """With 40 GPUs the leases that hold are all that is sent."""
    book, gpus = LeaseBook(miner_key, MemoryLeases(), lease_blocks=BLOCKS), range(40)
    names = tuple(f"gpu-{n}" for n in gpus)
    held = renew(book, 100, gpus=names)
    assert len(renew(book, 100 + BLOCKS - 3, gpus=names)) == 40
    assert book.with_next(held) == held
    assert len(book.with_next(held[:32])) == MAX_LAUNCH_LEASES


def test_renewal_follows_without_gap_or_overlap(miner_key, store):
    """Near its end a lease is followed by the next block range."""
    book = LeaseBook(miner_key, store, lease_blocks=BLOCKS)
    (first,) = renew(book, 100)
    (second,) = renew(book, first.to_block - 2)
    assert second.from_block == first.to_block + 1


def test_a_restarted_miner_never_overlaps(miner_key, tmp_path):
    """After a restart another validator is served only from the end of the old lease on."""
    store = MinerStore(tmp_path / "book.sqlite3")
    (first,) = renew(LeaseBook(miner_key, store, lease_blocks=BLOCKS), 100, stakes={A: 1})
    store.close()
    store = MinerStore(tmp_path / "book.sqlite3")
    book = LeaseBook(miner_key, store, lease_blocks=BLOCKS)
    assert renew(book, 101, stakes={B: 1}) == ()
    (second,) = renew(book, first.to_block - 1, stakes={B: 1})
    assert second.validator_hotkey == B
    assert not first.conflicts_with(second)
    store.close()


def test_leases_learned_back_are_respected(miner_key, store, tmp_path):
    """A miner that lost its data directory takes its leases back from a validator."""
    (old,) = renew(LeaseBook(miner_key, store, lease_blocks=BLOCKS), 100, stakes={A: 1})
    empty = MinerStore(tmp_path / "empty.sqlite3")
    book = LeaseBook(miner_key, empty, lease_blocks=BLOCKS)
    assert book.adopt([old]) == 1
    assert book.adopt([old]) == 0
    assert renew(book, 101, stakes={B: 1}) == ()
    empty.close()


def test_forged_leases_are_not_learned(miner_key, store):
    """A lease that this hotkey never signed raises and is not kept."""
    (real,) = renew(LeaseBook(miner_key, MemoryLeases(), lease_blocks=BLOCKS), 100)
    book = LeaseBook(miner_key, store, lease_blocks=BLOCKS)
    with pytest.raises(Unauthenticated):
        book.adopt([real.model_copy(update={"validator_hotkey": B})])
    assert store.leases(miner_hotkey=miner_key.ss58_address) == ()


def test_a_busy_gpu_stays_with_its_validator(miner_key, store):
    """While it runs an instance, a GPU is renewed to the validator of that instance."""
    book = LeaseBook(miner_key, store, lease_blocks=BLOCKS)
    (first,) = renew(book, 100, stakes={A: 1})
    stakes = {A: 1, B: 10**12}
    (second,) = renew(book, first.to_block, stakes=stakes, busy={"gpu-0": A})
    assert second.validator_hotkey == A


def test_an_idle_gpu_goes_to_who_wants(miner_key, store):
    """An idle GPU that is due is leased to a validator that misses instances."""
    book = LeaseBook(miner_key, store, lease_blocks=BLOCKS)
    (first,) = renew(book, 100, stakes={A: 10**12})
    stakes = {A: 10**12, B: 1}
    (second,) = renew(book, first.to_block, stakes=stakes, eager=frozenset({B}))
    assert second.validator_hotkey == B


def test_leases_are_short_until_an_instance_runs(miner_key):
    """Idle GPUs are promised for a fifth of the length, busy ones for all of it."""
    for busy, blocks in (({}, 60), ({"gpu-0": A}, 300)):
        book = LeaseBook(miner_key, MemoryLeases(), lease_blocks=300)
        assert renew(book, 100, busy=busy)[0].to_block == 100 + blocks - 1


def test_a_gpu_that_becomes_busy_is_renewed_early(miner_key, store):
    """An instance on a short lease gets its next lease at once, with the margin of a long one."""
    book = LeaseBook(miner_key, store, lease_blocks=300)
    (first,) = renew(book, 100)
    assert renew(book, 110) == ()
    (second,) = renew(book, 110, busy={"gpu-0": A})
    assert (second.from_block, second.to_block) == (first.to_block + 1, first.to_block + 300)
    assert renew(book, 111, busy={"gpu-0": A}) == ()


def test_a_gpu_promised_away_takes_nothing_new(miner_key, store):
    """Once the next lease is another validator's, the present lessee gets no new launch."""
    book = LeaseBook(miner_key, store, lease_blocks=BLOCKS)
    (first,) = renew(book, 100, stakes={A: 1})
    assert book.lessees(100) == {"gpu-0": A}
    renew(book, first.to_block, stakes={B: 1})
    assert book.lessees(first.to_block) == {}
    assert book.covering(["gpu-0"], A, first.to_block) == (first,)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 40),
            st.sets(st.sampled_from([A, B, C]), min_size=1),
            st.sets(st.sampled_from([A, B, C])),
            st.booleans(),
        ),
        max_size=25,
    )
)
def test_no_history_of_rounds_makes_a_conflict(rounds):
    """Whatever validators come, go and want, restarts included, no two leases conflict."""
    kept = MemoryLeases()
    book = LeaseBook(KEY, kept, lease_blocks=8)
    signed, block = [], 0
    for step, validators, eager, restart in rounds:
        block += step
        book = LeaseBook(KEY, kept, lease_blocks=8) if restart else book
        signed += book.renew(
            block=block,
            gpus=("gpu-0", "gpu-1"),
            stakes=dict.fromkeys(validators, 5),
            busy={},
            eager=frozenset(eager),
        )
    assert conflicts(signed) == []


def test_conflicts_are_what_this_file_would_see():
    """The check used above does find a double lease that is made by hand."""
    both = [
        Lease.sign(KEY, gpu_uuid="gpu-0", validator_hotkey=v, from_block=1, to_block=9)
        for v in (A, B)
    ]
    assert len(conflicts(both)) == 1


@given(
    st.integers(0, 12),
    st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 10**15), min_size=1),
)
def test_every_gpu_gets_a_validator_and_nobody_is_left_out(count, stakes):
    """All GPUs are shared, and each validator has one while there are enough."""
    gpus = [f"gpu-{n}" for n in range(count)]
    shares = share_gpus(gpus, stakes, {})
    assert set(shares) == set(gpus)
    if count >= len(stakes):
        assert set(shares.values()) == set(stakes)


def test_shares_follow_stake():
    """Nine GPUs above the floor are split three to one by stake."""
    gpus = [f"gpu-{n}" for n in range(10)]
    shares = list(share_gpus(gpus, {A: 3000, B: 1000}, {}).values())
    assert (shares.count(A), shares.count(B)) == (7, 3)


def test_many_single_gpu_miners_follow_stake_together():
    """One-GPU miners pick by weighted hashing, so that together they follow the stakes."""
    chosen = [share_gpus([f"gpu-{n}"], {A: 3000, B: 1000}, {})[f"gpu-{n}"] for n in range(400)]
    assert 260 <= chosen.count(A) <= 340
