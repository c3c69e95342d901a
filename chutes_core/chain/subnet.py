"""A subnet's parameters and epoch schedule, as one frozen record in integers.

Between chain/client and scoring/weights. Invariant: all values are of one finalized block; the
next epoch is what the chain's own runtime call says (the schedule is stateful, a formula is wrong).
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import bittensor as bt

from chutes_core.base.errors import NotFound

U16_MAX = 65_535


@dataclass(frozen=True)
class Subnet:
    """What a validator must know of its subnet before it sets weights.

    Times are blocks. ``max_weight_limit`` is the largest share of one uid in 65535ths;
    ``next_epoch_block`` is None where the tempo is 0; ``burn_rao`` is today's price of a slot.
    """

    netuid: int
    block: int
    tempo: int
    weights_rate_limit: int
    min_allowed_weights: int
    max_weight_limit: int
    commit_reveal: bool
    weights_version: int
    owner_hotkey: str
    last_epoch_block: int
    next_epoch_block: int | None
    block_ms: int
    immunity_period: int
    max_uids: int
    neuron_count: int
    registration_allowed: bool
    burn_rao: int

    @property
    def block_seconds(self) -> float:
        """Return the time between blocks, in seconds."""
        return self.block_ms / 1_000


async def read_subnet(
    substrate: bt.RpcSubstrate, netuid: int, block: int, block_hash: str
) -> Subnet:
    """Read a subnet's parameters at one block.

    Raises:
        NotFound: ``no_such_subnet``.
    """
    items = bt.storage.SubtensorModule

    async def value(item: Any) -> Any:
        return await substrate.query(item[0], item[1], [netuid], block_hash=block_hash)

    # one after another is 16 round trips; together they share one
    values = await asyncio.gather(
        value(items.NetworksAdded),
        value(items.Tempo),
        value(items.WeightsSetRateLimit),
        value(items.MinAllowedWeights),
        value(items.MaxWeightsLimit),
        value(items.CommitRevealWeightsEnabled),
        value(items.WeightsVersionKey),
        value(items.SubnetOwnerHotkey),
        value(items.LastEpochBlock),
        value(items.ImmunityPeriod),
        value(items.MaxAllowedUids),
        value(items.SubnetworkN),
        value(items.NetworkRegistrationAllowed),
        value(items.Burn),
        substrate.runtime_call(
            *bt.runtime_api.SubnetInfoRuntimeApi.get_next_epoch_start_block,
            [netuid],
            block_hash=block_hash,
        ),
        substrate.constant("Aura", "SlotDuration"),
    )
    if not values[0]:
        raise NotFound(
            "no_such_subnet", f"the chain has no subnet {netuid}", hint="check the netuid"
        )
    next_epoch = values[14]
    return Subnet(
        netuid=netuid,
        block=block,
        tempo=int(values[1]),
        weights_rate_limit=int(values[2]),
        min_allowed_weights=int(values[3]),
        max_weight_limit=int(values[4]),
        commit_reveal=bool(values[5]),
        weights_version=int(values[6]),
        owner_hotkey=str(values[7]),
        last_epoch_block=int(values[8]),
        next_epoch_block=None if next_epoch is None else int(next_epoch),
        block_ms=int(values[15]),
        immunity_period=int(values[9]),
        max_uids=int(values[10]),
        neuron_count=int(values[11]),
        registration_allowed=bool(values[12]),
        burn_rao=int(values[13]),
    )
