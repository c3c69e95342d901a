"""The watcher never passes a block over: discarded state, archive, retries, odd answers."""

from types import SimpleNamespace

import pytest
from substrateinterface.exceptions import SubstrateRequestException
from websocket import WebSocketConnectionClosedException

from chutes_core.base.errors import ChainError, Unavailable
from chutes_core.chain import transfers
from chutes_core.chain.transfers import NO_EXTRINSIC, Transfer, TransferWatcher


class Record:
    """A decoded event."""

    def __init__(self, value):
        self.value = value


def event(module, name, extrinsic_idx=2, **attributes):
    """Return one event record as substrate-interface decodes it."""
    return Record(
        {
            "extrinsic_idx": extrinsic_idx,
            "event": {"module_id": module, "event_id": name, "attributes": attributes},
        }
    )


class Node:
    """A node of four blocks; what it lacks or breaks on is set by the test."""

    def __init__(self, url):
        self.url = url
        self.head = 3
        self.discarded = set()
        self.missing = set()
        self.breaks = 0
        self.events = {}
        self.asked = []

    def get_chain_finalised_head(self):
        """Return the head's hash, after as many breaks as told."""
        if self.breaks:
            self.breaks -= 1
            raise WebSocketConnectionClosedException("cut")
        return f"0x{self.head}"

    def get_block_number(self, block_hash):
        """Return the number in the hash."""
        return int(block_hash[2:])

    def get_block_hash(self, number):
        """Return a block's hash, or None."""
        return None if number in self.missing else f"0x{number}"

    def rpc_request(self, method, params):
        """Return a header."""
        assert method == "chain_getHeader"
        number = int(params[0][2:])
        return {"result": {"number": hex(number), "parentHash": f"0x{number - 1}"}}

    def query(self, pallet, item, block_hash):
        """Return the block's time: 6 s a block."""
        assert (pallet, item) == ("Timestamp", "Now")
        return SimpleNamespace(value=6_000 * int(block_hash[2:]))

    def init_runtime(self, block_hash):
        """Note for which block metadata was loaded."""
        self.asked.append(block_hash)

    def get_events(self, block_hash):
        """Return the events, unless the state is gone or the metadata another block's."""
        assert self.asked[-1] == block_hash
        if int(block_hash[2:]) in self.discarded:
            raise SubstrateRequestException(
                {"code": 4003, "message": f"State already discarded for {block_hash}"}
            )
        return self.events.get(int(block_hash[2:]), [])

    def close(self):
        """Close nothing."""


@pytest.fixture
def nodes(monkeypatch):
    """The nodes by URL; opened when the watcher first asks."""
    known = {"ws://live": Node("ws://live"), "ws://archive": Node("ws://archive")}
    opened = []

    def interface(url, **options):
        assert options["type_registry"] == {"types": {"Balance": "u64"}}
        assert options["ws_options"]["timeout"] > 0
        opened.append(url)
        return known[url]

    monkeypatch.setattr(transfers, "SubstrateInterface", interface)
    known["opened"] = opened
    return known


def test_nothing_is_opened_before_the_first_question(nodes):
    """Opening costs seconds, so it waits for need, and happens once."""
    watcher = TransferWatcher("ws://live", archive_url="ws://archive")
    assert nodes["opened"] == []
    list(watcher.blocks_after(-1))
    list(watcher.blocks_after(-1))
    assert nodes["opened"] == ["ws://live"]


def test_discarded_state_stops_the_watcher_at_that_block(nodes):
    """Without an archive, the blocks before are given and then the reason; none is left out."""
    nodes["ws://live"].discarded = {2}
    blocks = TransferWatcher("ws://live").blocks_after(0)
    assert next(blocks).number == 1
    with pytest.raises(Unavailable) as stopped:
        next(blocks)
    assert stopped.value.code == "state_discarded"
    assert stopped.value.facts["block"] == 2
    assert "archive_url" in stopped.value.hint


def test_discarded_state_is_read_from_the_archive(nodes):
    """With an archive, the events of the very same block come from there."""
    nodes["ws://live"].discarded = {2}
    nodes["ws://archive"].events = {
        2: [event("Balances", "Transfer", **{"from": "a", "to": "b", "amount": 5})]
    }
    watcher = TransferWatcher("ws://live", archive_url="ws://archive")
    seen = list(watcher.blocks_after(0))
    assert [block.number for block in seen] == [1, 2, 3]
    assert seen[1].transfers == (Transfer("0x2", 2, 0, "a", "b", 5),)


def test_a_missing_block_is_an_error_and_not_a_gap(nodes):
    """A node that knows its head but not a block before it stops the watcher."""
    nodes["ws://live"].missing = {2}
    with pytest.raises(ChainError, match="block_missing"):
        list(TransferWatcher("ws://live").blocks_after(0))


def test_only_transfers_count_and_keep_their_event_index(nodes):
    """Other events are passed over; the index is that among all events of the block."""
    nodes["ws://live"].events = {
        1: [
            event("System", "ExtrinsicSuccess"),
            event("Balances", "Deposit", who="a", amount=1),
            event("Balances", "Transfer", **{"from": "a", "to": "b", "amount": 7}),
            event("Balances", "Transfer", None, **{"from": "c", "to": "d", "amount": 8}),
        ]
    }
    first = next(iter(TransferWatcher("ws://live").blocks_after(0)))
    assert first.transfers == (
        Transfer("0x1", 2, 2, "a", "b", 7),
        Transfer("0x1", NO_EXTRINSIC, 3, "c", "d", 8),
    )


def test_a_broken_connection_is_reopened_a_bounded_number_of_times(nodes):
    """Two breaks are survived, three are an error that names the node."""
    nodes["ws://live"].breaks = 2
    watcher = TransferWatcher("ws://live")
    assert watcher.finalized_number() == 3
    assert nodes["opened"] == ["ws://live"] * 3
    nodes["ws://live"].breaks = 3
    with pytest.raises(Unavailable, match="chain_unreachable"):
        watcher.finalized_number()


def test_a_closed_watcher_ends_a_walk_under_way(nodes):
    """Closed between two blocks, the walk ends with an error and opens nothing again."""
    watcher = TransferWatcher("ws://live")
    blocks = watcher.blocks_after(0)
    assert next(blocks).number == 1
    watcher.close()
    with pytest.raises(Unavailable, match="chain_closed"):
        next(blocks)
    assert nodes["opened"] == ["ws://live"]
