"""The weights call, composed as the subnet demands, and found again in a block.

Under chain/client. Invariants: the vector passes unaltered where commit-reveal is off; nothing is
signed while the last vector is inside the subnet's rate limit, as read after the pool was found
empty; where commit-reveal is on, the SDK seals the vector to the chain's own reveal schedule.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import bittensor as bt
from bittensor_core import Keypair

from chutes_core.base.errors import Exhausted, Invalid
from chutes_core.chain.extrinsics import Build, Receipt, finalized_head
from chutes_core.chain.metagraph import Neuron, read_metagraph
from chutes_core.chain.subnet import U16_MAX, Subnet, read_subnet


def weights_call(
    netuid: int, hotkey: Keypair, weights: Mapping[int, int], version_key: int
) -> Build:
    """Return a builder of the call that sets a vector of u16 weights by uid.

    The builder raises `Exhausted` ``weights_rate_limited`` where it is too early.

    Raises:
        Invalid: ``bad_weights``.
    """
    pairs = sorted(weights.items())
    if not any(value for _, value in pairs):
        raise Invalid("bad_weights", "a weight vector needs a weight above zero")
    if any(not 0 <= part <= U16_MAX for pair in pairs for part in pair):
        raise Invalid("bad_weights", "uids and weights lie between 0 and 65535")

    async def build(substrate: bt.RpcSubstrate) -> Any:
        head = await finalized_head(substrate)
        subnet = await read_subnet(substrate, netuid, *head)
        metagraph = await read_metagraph(substrate, netuid, *head)
        neuron = metagraph.by_hotkey(hotkey.ss58_address)
        if neuron is not None:
            _check_rate(neuron, subnet)
        if subnet.commit_reveal:
            intent = bt.SetWeights(netuid=netuid, weights=dict(pairs), version_key=version_key)
            return await intent.build(substrate, hotkey)
        return await substrate.compose(  # type: ignore[no-untyped-call]  # the SDK's
            bt.calls.SubtensorModule.set_weights(
                netuid=netuid,
                dests=[uid for uid, _ in pairs],
                weights=[value for _, value in pairs],
                version_key=version_key,
            )
        )

    return build


async def find_weights(
    substrate: bt.RpcSubstrate, hotkey_ss58: str, block_number: int
) -> Receipt | None:
    """Return the receipt of the hotkey's successful weights call in a block, if there is one."""
    block_hash = await substrate.block_hash(block_number)
    block = await substrate.get_block(block_hash=block_hash)
    raw = (await substrate.raw.rpc_request("chain_getBlock", [block_hash]))["block"]["extrinsics"]
    decoded = [getattr(each, "value", each) for each in (block or {}).get("extrinsics", ())]
    for extrinsic, encoded in zip(decoded, raw, strict=True):
        if not isinstance(extrinsic, dict) or extrinsic.get("address") != hotkey_ss58:
            continue
        if "weights" not in extrinsic["call"]["call_function"]:
            continue
        data = bytes.fromhex(encoded.removeprefix("0x"))
        extrinsic_hash = "0x" + blake2b(data, digest_size=32).hexdigest()
        result = await substrate.find_extrinsic(extrinsic_hash, block_hash)
        if result is not None and result.success:
            return Receipt(extrinsic_hash, block_number, block_hash)
    return None


def _check_rate(neuron: Neuron, subnet: Subnet) -> None:
    since = subnet.block - neuron.last_update
    if neuron.last_update and since < subnet.weights_rate_limit:
        blocks = subnet.weights_rate_limit - since
        raise Exhausted(
            "weights_rate_limited",
            f"the last weights are {since} blocks old; the limit is {subnet.weights_rate_limit}",
            hint=f"wait {blocks} blocks",
            retry_after_s=max(1, blocks * subnet.block_ms // 1_000),
            blocks=blocks,
        )
