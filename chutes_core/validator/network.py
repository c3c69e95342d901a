"""The subnet as this validator last saw it finalized: who is registered, where, since when.

Refreshed by a loop from chain/, read by everyone else without waiting. Invariant: it holds one
consistent picture (metagraph and subnet of one refresh), replaced whole.
"""

import asyncio
import ipaddress
from dataclasses import dataclass

from chutes_core.base.errors import Forbidden, Unavailable
from chutes_core.chain.client import ChainClient
from chutes_core.chain.metagraph import Metagraph, Neuron
from chutes_core.chain.subnet import Subnet
from chutes_core.validator.launches.inventories import MinerAddress
from chutes_core.validator.launches.ports import Miner
from chutes_core.wire.discovery import url_of


@dataclass(frozen=True)
class Picture:
    """One refresh."""

    metagraph: Metagraph
    subnet: Subnet
    commitments: dict[str, str]


class Network:
    """A cached, finalized view of the subnet."""

    def __init__(self, chain: ChainClient, *, self_hotkey: str) -> None:
        self._chain = chain
        self._self = self_hotkey
        self._picture: Picture | None = None

    async def refresh(self) -> None:
        """Read the chain anew."""
        self._picture = await asyncio.to_thread(self._read)

    @property
    def picture(self) -> Picture:
        """Return the last picture.

        Raises:
            Unavailable: the chain has not been read yet.
        """
        if self._picture is None:
            raise Unavailable("chain_not_read", "the chain has not been read yet")
        return self._picture

    @property
    def devnet(self) -> bool:
        """Whether the chain's genesis is a devnet's."""
        return self._chain.is_devnet

    @property
    def block(self) -> int:
        """The finalized block of the last picture."""
        return self.picture.metagraph.block

    def miner(self, hotkey: str) -> Miner | None:
        """Return a registered neuron, or None; its host is empty where it may not be dialled."""
        neuron = self.picture.metagraph.by_hotkey(hotkey)
        if neuron is None:
            return None
        host = neuron.axon_ip if neuron.axon_ip and self.may_dial(neuron.axon_ip) else ""
        return Miner(hotkey, neuron.coldkey, neuron.registered_at_block, host)

    async def authorise_neuron(self, hotkey: str) -> None:
        """Let registered neurons call the control endpoints.

        Raises:
            Forbidden: ``not_registered``.
        """
        if self.picture.metagraph.by_hotkey(hotkey) is None:
            raise Forbidden(
                "not_registered",
                f"{hotkey} is not registered on this subnet",
                hint="register it (scripts/register.py) and wait until that is finalized",
            )

    def miners(self) -> list[Neuron]:
        """Return the serving neurons that this validator may dial, itself excepted."""
        return [
            neuron
            for neuron in self.picture.metagraph.serving()
            if neuron.hotkey != self._self and self.may_dial(neuron.axon_ip)
        ]

    def url_of_miner(self, hotkey: str) -> str | None:
        """Return the base URL of a miner's HTTP, or None where it may not be dialled."""
        for neuron in self.miners():
            if neuron.hotkey == hotkey and neuron.axon_ip and neuron.axon_port:
                return MinerAddress(hotkey, neuron.axon_ip, neuron.axon_port).url
        return None

    def other_validators(self) -> dict[str, str]:
        """Return hotkey -> URL of the other validators that have committed one."""
        found = {}
        for neuron in self.picture.metagraph.validators():
            url = url_of(self.picture.commitments.get(neuron.hotkey, ""))
            if url is not None and neuron.hotkey != self._self:
                found[neuron.hotkey] = url
        return found

    def may_dial(self, ip: str | None) -> bool:
        """Tell whether an address may be dialled: public ones, and any on a devnet."""
        return ip is not None and (self.devnet or ipaddress.ip_address(ip).is_global)

    def _read(self) -> Picture:
        return Picture(
            metagraph=self._chain.metagraph(),
            subnet=self._chain.subnet(),
            commitments=self._chain.commitments(),
        )
