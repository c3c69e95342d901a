"""Looks at the chain from outside, with connections of its own: what the demo shows must be there.

Reads by substrate-interface and the SDK, as a stranger would; no development-only call is made.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import bittensor as bt
from bittensor_core import Keypair
from substrateinterface import SubstrateInterface

from chutes_core.base.errors import TimedOut
from chutes_core.chain.client import ChainClient

WEIGHTS_TIMEOUT_S = 150.0
U16_MAX = 65_535


@dataclass(frozen=True)
class FoundWeights:
    """A set_weights extrinsic in a finalized block."""

    extrinsic_hash: str
    block_number: int
    weights: dict[int, int]


def transfer(url: str, sender: Keypair, destination_ss58: str, rao: int) -> None:
    """Send TAO and wait until it is final."""
    with ChainClient.connect(url, 0) as chain:
        call = bt.calls.Balances.transfer_keep_alive(dest=destination_ss58, value=rao)
        chain.call(sender, call, "transfer")


def incentives(url: str, netuid: int) -> dict[str, float]:
    """Return hotkey -> share of the incentive (0 to 1) at the finalized head."""
    with ChainClient.connect(url, netuid) as chain:
        return {n.hotkey: n.incentive / U16_MAX for n in chain.metagraph().neurons}


def find_weights(url: str, netuid: int, hotkey_ss58: str, needed: Sequence[str]) -> FoundWeights:
    """Search finalized blocks, waiting for new ones, for weights of a validator on given miners.

    Raises:
        TimedOut: none came in time.
    """
    with ChainClient.connect(url, netuid) as chain:
        metagraph = chain.metagraph()
        uids = {neuron.uid for neuron in metagraph.neurons if neuron.hotkey in needed}
    node = SubstrateInterface(url=url, ss58_format=42, type_registry={"types": {"Balance": "u64"}})
    try:
        return _search(node, netuid, hotkey_ss58, uids)
    finally:
        node.close()


def _search(
    node: SubstrateInterface, netuid: int, hotkey_ss58: str, uids: set[int]
) -> FoundWeights:
    deadline = time.monotonic() + WEIGHTS_TIMEOUT_S
    number = 1
    while time.monotonic() < deadline:
        head = node.get_block_number(node.get_chain_finalised_head())
        while number <= head:
            block = node.get_block(node.get_block_hash(number))
            for extrinsic in block["extrinsics"]:
                weights = _weights_in(extrinsic.value, netuid, hotkey_ss58)
                if weights is not None and all(weights.get(uid) for uid in uids):
                    return FoundWeights(str(extrinsic.value["extrinsic_hash"]), number, weights)
            number += 1
        time.sleep(1)
    raise TimedOut("no_weights", f"no weights on {sorted(uids)} in {WEIGHTS_TIMEOUT_S:.0f} s")


def _weights_in(extrinsic: dict[str, Any], netuid: int, hotkey_ss58: str) -> dict[int, int] | None:
    call = extrinsic["call"]
    if extrinsic.get("address") != hotkey_ss58 or call["call_function"] != "set_weights":
        return None
    values = {argument["name"]: argument["value"] for argument in call["call_args"]}
    if values["netuid"] != netuid:
        return None
    return dict(zip(values["dests"], values["weights"], strict=True))
