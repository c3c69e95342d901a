"""Faults on a chain inside the process: what becomes of extrinsics, blocks, versions, time."""

import pytest

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Invalid
from chutes_core.devnet.author import Author
from chutes_core.devnet.development import Development
from chutes_core.devnet.faults import FAULT_KINDS

ALICE_CALL = ("System", "remark", {"remark": b"x"})


@pytest.fixture
def dev(net):
    """Controls of the chain ``net``, with a clock that stands still."""
    return Development(net.chain, Author(net.chain, ManualClock()))


def mortal(net, period=8):
    """Return the era fields of an extrinsic signed now."""
    head = net.chain.best.number
    return {"era": {"period": period, "current": head}, "era_block": head}


def test_a_refusal_has_the_words_that_were_asked_for(net, dev):
    """Only the chosen signer is refused, only as often as told."""
    alice = net.address("//Alice")
    dev.fault("refuse_extrinsic", {"signer": alice, "data": "Inability to pay some fees"})
    net.submit(net.sign("//Bob", ALICE_CALL))
    assert net.refused(net.sign("//Alice", ALICE_CALL)) == "Inability to pay some fees"
    net.submit(net.sign("//Alice", ALICE_CALL))
    assert dev.methods()["dev_faults"]() == []


def test_a_delayed_extrinsic_waits_its_blocks(net, dev):
    """Ready at once, included after two blocks more."""
    dev.fault("delay_extrinsic", {"blocks": 2, "call": "System.remark"})
    raw = net.sign("//Alice", ALICE_CALL)
    net.submit(raw)
    for _ in range(2):
        net.blocks(1)
        assert raw not in net.chain.best.extrinsics
    net.blocks(1)
    assert raw in net.chain.best.extrinsics


def test_one_that_waits_is_held_until_healed(net, dev):
    """``waiting`` catches what is in the pool already."""
    raw = net.sign("//Alice", ALICE_CALL)
    net.submit(raw)
    assert dev.fault("delay_extrinsic", {"waiting": True}) == 1
    net.blocks(5)
    assert raw in [pooled.extrinsic.raw for pooled in net.chain.pool.pending()]
    dev.heal()
    net.blocks(1)
    assert raw in net.chain.best.extrinsics


def test_an_evicted_extrinsic_is_never_included_but_may_come_again(net, dev):
    """The watcher hears ``dropped``; the same bytes are taken a second time."""
    dev.fault("evict_extrinsic")
    raw = net.sign("//Alice", ALICE_CALL)
    identity = net.submit(raw)
    assert net.statuses[identity] == ["ready", "dropped"]
    net.blocks(2)
    assert all(raw not in net.chain.block_at(n).extrinsics for n in range(4))
    net.submit(raw)
    net.blocks(1)
    assert raw in net.chain.best.extrinsics


def test_an_expired_era_cannot_be_sent_again(net, dev):
    """Held past its era it is told invalid, and a second try is refused."""
    dev.fault("expire_era")
    raw = net.sign("//Alice", ALICE_CALL, **mortal(net))
    identity = net.submit(raw)
    dev.new_block({"count": 9})
    assert net.statuses[identity] == ["ready", "invalid"]
    assert "bad signature" in net.refused(raw)


def test_another_signer_takes_the_nonce(net, dev):
    """A remark with that nonce is in the block; ours is usurped and outdated."""
    dev.fault("take_nonce", {"signer": net.address("//Alice")})
    raw = net.sign("//Alice", ALICE_CALL)
    identity = net.submit(raw)
    assert "usurped" in net.statuses[identity][-1]
    net.blocks(1)
    assert raw not in net.chain.best.extrinsics
    assert len(net.chain.best.extrinsics) == 2
    assert net.refused(raw) == "Transaction is outdated"


def test_a_nonce_can_be_taken_at_any_moment(net, dev):
    """Without anything submitted, the account's next nonce goes."""
    before = net.chain.next_index(net.address("//Alice"))
    dev.fault("take_nonce", {"signer": net.address("//Alice"), "now": True})
    net.blocks(1)
    assert net.chain.next_index(net.address("//Alice")) == before + 1


def test_a_failing_extrinsic_pays_and_changes_nothing_else(net, dev):
    """Included, ExtrinsicFailed, the fee is gone, the transfer did not happen."""
    dev.fault("fail_extrinsic", {"call": "Balances.transfer_keep_alive"})
    bob, alice = net.free("//Bob"), net.free("//Alice")
    outcome = net.run(
        "//Alice", "Balances", "transfer_keep_alive", dest=net.address("//Bob"), value=10**9
    )
    assert outcome.error == "Other"
    assert net.free("//Bob") == bob
    assert alice - 10**9 < net.free("//Alice") < alice


def test_stalled_finality_catches_up_when_healed(net, dev):
    """Blocks go on, the finalized head does not."""
    dev.fault("stall_finality")
    before = net.chain.finalized_number
    net.blocks(5)
    assert net.chain.finalized_number == before
    dev.heal("stall_finality")
    net.blocks(1)
    assert net.chain.finalized_number == net.chain.best.number - 2


def test_retracted_blocks_are_forgotten(net, dev):
    """A transfer that was included is undone, and comes again in another block."""
    dev.fault("stall_finality")
    bob = net.free("//Bob")
    raw = net.sign(
        "//Alice", ("Balances", "transfer_keep_alive", {"dest": net.address("//Bob"), "value": 7})
    )
    identity = net.submit(raw)
    net.blocks(1)
    gone = net.chain.best
    assert net.free("//Bob") == bob + 7
    assert dev.fault("retract_blocks") == 1
    assert net.chain.block(gone.hash) is None
    assert net.free("//Bob") == bob
    dev.set_time(1_800_000_000_000)
    dev.new_block()
    assert net.chain.best.hash != gone.hash
    assert net.free("//Bob") == bob + 7
    kinds = [s if isinstance(s, str) else next(iter(s)) for s in net.statuses[identity]]
    assert kinds == ["ready", "inBlock", "retracted", "ready", "inBlock"]


def test_a_lost_block_takes_its_extrinsics_along(net, dev):
    """With ``lose`` they do not come back; finalized blocks stay."""
    raw = net.sign("//Alice", ALICE_CALL)
    net.submit(raw)
    net.blocks(1)
    finalized = net.chain.finalized
    assert dev.fault("retract_blocks", {"blocks": 9, "lose": True}) == 2
    assert net.chain.best == finalized
    net.blocks(3)
    chain = [net.chain.block_at(number) for number in range(net.chain.best.number + 1)]
    assert all(raw not in block.extrinsics for block in chain)


def test_a_new_runtime_refuses_old_signatures(net, dev):
    """What was signed for the old version is refused, also when it waits."""
    told = []
    net.chain.on_version.append(told.append)
    early = net.sign("//Bob", ALICE_CALL)
    dev.fault("spec_version", {"spec": 999})
    assert net.chain.versions.at(net.chain.best.number).spec == 461
    assert net.chain.versions.at(net.chain.best.number + 1).spec == 999
    assert [version.spec for version in told] == [999]
    assert "bad signature" in net.refused(early)


def test_storage_is_set_by_name_or_by_key(net, dev):
    """Typed and raw, plain and map, and removal."""
    alice, bob = net.address("//Alice"), net.address("//Bob")
    account = {"nonce": 4, "consumers": 0, "providers": 1, "sufficients": 0}
    account["data"] = {"free": 5_000_000, "reserved": 0, "frozen": 0, "flags": 0}
    named = {"System": {"Account": [[[alice], account]]}, "SubtensorModule": {"TotalStake": 77}}
    dev.set_storage(named)
    assert net.free(alice) == 5_000_000
    assert net.chain.next_index(alice) == 4
    assert net.get("TotalStake") == 77
    key = net.codec.key("System", "Account", (bob,))
    dev.set_storage([["0x" + key.hex(), None]])
    assert net.free(bob) == 0


def test_time_is_set_and_runs_on(net, dev):
    """The next block has the time; the ones after it follow, forward or backward."""
    for when in (1_900_000_000_000, 1_600_000_000_000, "2030-01-01T00:00:00+00:00"):
        expected = dev.set_time(when)
        dev.new_block({"count": 2})
        assert net.chain.now_ms == expected + 1
    assert expected == 1_893_456_000_000


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("fault", ("no_such_fault",)),
        ("heal", ("drop_connections",)),
        ("new_block", ({"count": 0},)),
        ("new_block", ({"blocks": 1},)),
        ("fault", ("prune_state", {"blocks": 0})),
        ("set_time", (-1,)),
    ],
)
def test_a_wrong_control_is_refused(dev, method, arguments):
    """Nothing is ignored in silence."""
    with pytest.raises(Invalid):
        getattr(dev, method)(*arguments)


def test_the_list_of_faults_is_whole(dev):
    """Tests that walk every fault walk `FAULT_KINDS`; it has what dev_fault takes, no more."""
    assert set(dev._faults) == FAULT_KINDS
