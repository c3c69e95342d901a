"""The metagraph as records, and who a registration would replace."""

import asyncio
from dataclasses import replace

import pytest

from chutes_core.base.errors import ChainError, NotFound
from chutes_core.chain.metagraph import Metagraph, Neuron, read_metagraph
from chutes_core.chain.registration import prune_candidate
from chutes_core.chain.subnet import Subnet

GRAPH = {
    "hotkeys": ["h0", "h1"],
    "coldkeys": ["c0", "c1"],
    "total_stake": [7, 8],
    "validator_permit": [True, False],
    "block_at_registration": [1, 2],
    "incentives": [0, 65_535],
    "last_update": [3, 4],
    "active": [True, True],
    "axons": [
        {"ip": 0, "port": 0, "ip_type": 0},
        {"ip": 0x01020304, "port": 80, "ip_type": 4},
    ],
}
SUBNET = Subnet(
    netuid=1,
    block=1_000,
    tempo=20,
    weights_rate_limit=5,
    min_allowed_weights=1,
    max_weight_limit=65_535,
    commit_reveal=False,
    weights_version=0,
    owner_hotkey="owner",
    last_epoch_block=980,
    next_epoch_block=1_000,
    block_ms=12_000,
    immunity_period=100,
    max_uids=256,
    neuron_count=3,
    registration_allowed=True,
    burn_rao=1,
)


class Node:
    """Answers one runtime call."""

    def __init__(self, graph):
        self.graph = graph

    async def runtime_call(self, api, method, params, block_hash):
        """Return the prepared answer."""
        assert (api, method, params) == ("SubnetInfoRuntimeApi", "get_metagraph", [1])
        assert block_hash == "0xhash"
        return self.graph


def read(graph):
    """Read a metagraph from a prepared answer."""
    return asyncio.run(read_metagraph(Node(graph), 1, 9, "0xhash"))


def test_rows_carry_integers_and_addresses():
    """Every column lands in its row; a served axon is a literal address."""
    metagraph = read(GRAPH)
    assert metagraph.block == 9
    assert metagraph.by_hotkey("h1") == Neuron(1, "h1", "c1", 8, False, 2, "1.2.3.4", 80, 65_535, 4)
    assert metagraph.by_uid(0).axon_ip is None
    assert [n.uid for n in metagraph.validators()] == [0]
    assert [n.uid for n in metagraph.serving()] == [1]
    assert metagraph.by_hotkey("nobody") is None
    assert metagraph.by_uid(2) is None


def test_an_ipv6_axon_is_read():
    """Addresses of both kinds are read."""
    axon = {"ip": 1, "port": 80, "ip_type": 6}
    assert read(GRAPH | {"axons": [axon, axon]}).by_uid(0).axon_ip == "::1"


def test_missing_subnet_is_named():
    """A subnet that the chain does not have is not found."""
    with pytest.raises(NotFound, match="no_such_subnet"):
        read(None)


@pytest.mark.parametrize("column", sorted(GRAPH.keys() - {"hotkeys"}))
def test_columns_of_other_length_are_an_error(column):
    """A node whose columns do not fit together is not believed."""
    with pytest.raises(ChainError, match="bad_metagraph"):
        read(GRAPH | {column: GRAPH[column][:1]})


def neuron(uid, **changes):
    """Return a plain miner."""
    made = Neuron(uid, f"h{uid}", f"c{uid}", 0, False, 10, None, None, 5, 0)
    return replace(made, **changes)


def test_prune_takes_the_lowest_incentive_that_is_not_immune():
    """Immune neurons, validators and the owner stay; then the lowest incentive goes."""
    metagraph = Metagraph(
        1_000,
        (
            neuron(0, hotkey="owner", incentive=0),
            neuron(1, validator_permit=True, incentive=0),
            neuron(2, registered_at_block=901, incentive=0),
            neuron(3, registered_at_block=900, incentive=1),
            neuron(4, registered_at_block=20, incentive=1),
            neuron(5, incentive=2),
        ),
    )
    assert prune_candidate(metagraph, SUBNET).uid == 4


def test_prune_of_an_all_immune_subnet_is_nobody():
    """Where all are immune, nobody can be replaced."""
    metagraph = Metagraph(1_000, (neuron(0, registered_at_block=999),))
    assert prune_candidate(metagraph, SUBNET) is None
