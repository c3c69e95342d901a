"""Who is registered on the subnet, as frozen records in integers, read at one finalized block.

Between chain/client and everyone who authorises, scores or serves. Invariant: a uid names a neuron
only together with its registration block, because the chain reuses uids; whoever remembers a
neuron remembers (hotkey, registration block) and looks the uid up last.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import bittensor as bt

from chutes_core.base.errors import ChainError, NotFound


@dataclass(frozen=True)
class Neuron:
    """One row. ``incentive`` is the chain's u16 (65535 is all of it), ``last_update`` a block."""

    uid: int
    hotkey: str
    coldkey: str
    stake_rao: int
    validator_permit: bool
    registered_at_block: int
    axon_ip: str | None
    axon_port: int | None
    incentive: int
    last_update: int
    active: bool = True


@dataclass(frozen=True)
class Metagraph:
    """All neurons of the subnet at one block, by uid."""

    block: int
    neurons: tuple[Neuron, ...]
    _by_hotkey: dict[str, Neuron] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = {neuron.hotkey: neuron for neuron in self.neurons}
        object.__setattr__(self, "_by_hotkey", table)

    def by_hotkey(self, hotkey_ss58: str) -> Neuron | None:
        """Return the neuron of a hotkey, or None where it is not registered."""
        return self._by_hotkey.get(hotkey_ss58)

    def by_uid(self, uid: int) -> Neuron | None:
        """Return the neuron that holds a uid at this block, or None."""
        return self.neurons[uid] if 0 <= uid < len(self.neurons) else None

    def validators(self) -> tuple[Neuron, ...]:
        """Return the neurons that hold a validator permit."""
        return tuple(neuron for neuron in self.neurons if neuron.validator_permit)

    def serving(self) -> tuple[Neuron, ...]:
        """Return the neurons that announce an axon."""
        return tuple(neuron for neuron in self.neurons if neuron.axon_ip is not None)


async def read_metagraph(
    substrate: bt.RpcSubstrate, netuid: int, block: int, block_hash: str
) -> Metagraph:
    """Read the metagraph of a subnet at one block.

    Raises:
        NotFound: ``no_such_subnet``.
        ChainError: ``bad_metagraph``, the node's answer does not fit together.
    """
    graph = await substrate.runtime_call(
        *bt.runtime_api.SubnetInfoRuntimeApi.get_metagraph, [netuid], block_hash=block_hash
    )
    if not isinstance(graph, dict):
        raise NotFound(
            "no_such_subnet", f"the chain has no subnet {netuid}", hint="check the netuid"
        )
    try:
        return Metagraph(block, tuple(_neurons(graph)))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ChainError(
            "bad_metagraph", f"the node's metagraph of subnet {netuid} does not fit together"
        ) from error


def _neurons(graph: Mapping[str, Any]) -> list[Neuron]:
    neurons = []
    for uid, hotkey in enumerate(graph["hotkeys"]):
        axon_ip, axon_port = _axon(graph["axons"][uid])
        neurons.append(
            Neuron(
                uid=uid,
                hotkey=str(hotkey),
                coldkey=str(graph["coldkeys"][uid]),
                stake_rao=int(graph["total_stake"][uid]),
                validator_permit=bool(graph["validator_permit"][uid]),
                registered_at_block=int(graph["block_at_registration"][uid]),
                axon_ip=axon_ip,
                axon_port=axon_port,
                incentive=int(graph["incentives"][uid]),
                last_update=int(graph["last_update"][uid]),
                active=bool(graph["active"][uid]),
            )
        )
    return neurons


def _axon(axon: Mapping[str, Any]) -> tuple[str | None, int | None]:
    ip, port = int(axon["ip"]), int(axon["port"])
    if not ip or not port:
        return None, None
    if int(axon["ip_type"]) == 6:
        return str(ipaddress.IPv6Address(ip)), port
    return str(ipaddress.IPv4Address(ip)), port
