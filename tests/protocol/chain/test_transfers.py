"""The transfer watcher against a devnet over a real socket, with the real substrate-interface."""

import time
from itertools import pairwise

import bittensor as bt
import pytest

from chutes_core.base.errors import ChainError, Unavailable
from chutes_core.chain.addresses import derive
from chutes_core.chain.extrinsics import submit
from chutes_core.chain.transfers import TransferWatcher


@pytest.fixture(scope="module")
def watcher(devnet):
    """One watcher; it opens once and is kept."""
    made = TransferWatcher(devnet.url)
    yield made
    made.close()


def transfer(address, rao):
    """Return a transfer call."""
    return bt.calls.Balances.transfer_keep_alive(dest=address, value=rao)


def blocks_until(watcher, number, wanted):
    """Read on after a block until a wanted one has come; what was read, in order."""
    seen = []
    deadline = time.monotonic() + 90
    while not seen or seen[-1].number < wanted:
        assert time.monotonic() < deadline
        seen += watcher.blocks_after(seen[-1].number if seen else number)
    return seen


def test_every_finalized_block_comes_once_and_in_order(watcher):
    """From before genesis to the head: no gap, no repetition, each the child of the one before."""
    head = watcher.finalized_number()
    seen = list(watcher.blocks_after(-1))
    assert [block.number for block in seen] == list(range(seen[-1].number + 1))
    assert seen[-1].number >= head
    assert all(child.parent_hash == parent.hash for parent, child in pairwise(seen))


def test_a_transfer_to_a_derived_address_is_seen_with_its_key(client, watcher, key):
    """Source, destination and amount are the transfer's; block and indices name it for ever."""
    payer, address = key("//Alice"), derive(key("//Treasury").ss58_address, 7)
    receipt = client.call(payer, transfer(address, 1_500_000_001), "pay")
    seen = blocks_until(watcher, receipt.block_number - 1, receipt.block_number)
    (found,) = seen[0].transfers
    assert (seen[0].number, seen[0].hash) == (receipt.block_number, receipt.block_hash)
    assert found.block_hash == receipt.block_hash
    assert (found.source_ss58, found.destination_ss58, found.rao) == (
        payer.ss58_address,
        address,
        1_500_000_001,
    )
    assert found.extrinsic_index >= 0
    again = next(iter(watcher.blocks_after(receipt.block_number - 1)))
    assert again == seen[0]


def test_transfers_inside_a_batch_have_keys_of_their_own(client, watcher, key):
    """Two transfers of one extrinsic differ in their event index."""
    bob = key("//Bob")
    addresses = [derive(key("//Treasury").ss58_address, number) for number in (1, 2)]

    async def batch(substrate):
        inner = [await substrate.compose(transfer(address, 10**9)) for address in addresses]
        return await substrate.compose(bt.calls.Utility.batch_all(calls=inner))

    receipt = submit(client._connection, batch, bob, "batch", hotkey_signed=False)
    (block, *_) = blocks_until(watcher, receipt.block_number - 1, receipt.block_number)
    assert [found.destination_ss58 for found in block.transfers] == addresses
    assert len({found.extrinsic_index for found in block.transfers}) == 1
    assert len({found.event_index for found in block.transfers}) == 2


def test_a_failed_transfer_is_none(client, watcher, key):
    """A transfer that the chain refused at dispatch credits nobody."""
    charlie = key("//Charlie")
    before = client.finalized().number
    with pytest.raises(ChainError):
        client.call(charlie, transfer(key("//Bob").ss58_address, 10**18), "overspend")
    head = client.finalized().number
    seen = blocks_until(watcher, before, head)
    assert not [
        found
        for block in seen
        for found in block.transfers
        if found.source_ss58 == charlie.ss58_address
    ]


def test_a_cursor_above_the_head_is_an_error(watcher):
    """A node that is behind the cursor is not waited for in silence."""
    with pytest.raises(ChainError, match="chain_behind"):
        list(watcher.blocks_after(watcher.finalized_number() + 1_000))


def test_another_chain_than_the_cursors_is_noticed(watcher):
    """A block whose parent is not the block of the cursor credits nothing."""
    with pytest.raises(ChainError, match="chain_reorganised"):
        next(iter(watcher.blocks_after(0, "0x" + "00" * 32)))
    genesis = next(iter(watcher.blocks_after(-1)))
    assert next(iter(watcher.blocks_after(0, genesis.hash))).number == 1


def test_a_cut_connection_is_reopened(devnet, relay):
    """The watcher goes on after its connection was cut."""
    watcher = TransferWatcher(relay.url)
    before = watcher.finalized_number()
    relay.cut()
    assert watcher.finalized_number() >= before
    relay.closed = True
    relay.cut()
    with pytest.raises(Unavailable) as lost:
        watcher.finalized_number()
    assert lost.value.code == "chain_unreachable"
    watcher.close()
