"""The miner's view of the chain: the last finalized metagraph, and who may call this miner.

Path: chain/client (sync, in a thread) -> here -> server, discovery, leases. Invariant: a failed
refresh leaves the last view as it was; nothing is ever read half old and half new.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bittensor_core import Keypair

from chutes_core.base.errors import Forbidden, Unavailable


class Neuron(Protocol):
    """What the miner reads of a neuron (`chutes_core.chain.metagraph.Neuron`)."""

    @property
    def hotkey(self) -> str: ...  # noqa: D102 - named as in the chain room
    @property
    def stake_rao(self) -> int: ...  # noqa: D102
    @property
    def validator_permit(self) -> bool: ...  # noqa: D102
    @property
    def axon_ip(self) -> str | None: ...  # noqa: D102
    @property
    def axon_port(self) -> int | None: ...  # noqa: D102
    @property
    def incentive(self) -> int: ...  # noqa: D102


class Metagraph(Protocol):
    """What the miner reads of a metagraph (`chutes_core.chain.metagraph.Metagraph`)."""

    @property
    def block(self) -> int: ...  # noqa: D102

    def by_hotkey(self, hotkey_ss58: str) -> Neuron | None: ...  # noqa: D102
    def validators(self) -> Sequence[Neuron]: ...  # noqa: D102


class Chain(Protocol):
    """What the miner needs of `chutes_core.chain.client.ChainClient`; every call blocks."""

    @property
    def genesis_hash(self) -> str: ...  # noqa: D102
    @property
    def is_devnet(self) -> bool: ...  # noqa: D102
    @property
    def netuid(self) -> int: ...  # noqa: D102

    def metagraph(self) -> Metagraph: ...  # noqa: D102
    def commitments(self) -> Mapping[str, str]: ...  # noqa: D102
    def serve_axon(self, hotkey: Keypair, ip: str, port: int) -> object: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Seen:
    """One consistent reading."""

    metagraph: Metagraph
    commitments: Mapping[str, str] = field(default_factory=dict)


class ChainView:
    """Holds the last reading; the chain client is called by one thread at a time."""

    def __init__(self, chain: Chain, *, hotkey_ss58: str) -> None:
        self._chain = chain
        self._hotkey_ss58 = hotkey_ss58
        self._seen: Seen | None = None
        self._lock = asyncio.Lock()

    @property
    def seen(self) -> Seen:
        """Return the last reading.

        Raises:
            Unavailable: ``chain_not_read``, before the first one.
        """
        if self._seen is None:
            raise Unavailable("chain_not_read", "the chain has not been read yet")
        return self._seen

    @property
    def block(self) -> int:
        """Return the finalized block of the last reading."""
        return self.seen.metagraph.block

    @property
    def registered(self) -> bool:
        """Tell whether this miner's hotkey was registered at the last reading."""
        return self.seen.metagraph.by_hotkey(self._hotkey_ss58) is not None

    @property
    def incentive(self) -> int | None:
        """Return this miner's incentive (0 to 65535) at the last reading; None: not registered."""
        own = self.seen.metagraph.by_hotkey(self._hotkey_ss58)
        return None if own is None else own.incentive

    async def refresh(self) -> None:
        """Read metagraph and commitments anew."""
        async with self._lock:
            self._seen = await asyncio.to_thread(self._read)

    async def announce(self, hotkey: Keypair, ip: str, port: int) -> bool:
        """Serve the axon unless the chain shows this very address; return whether it was sent."""
        own = self.seen.metagraph.by_hotkey(self._hotkey_ss58)
        if own is not None and (own.axon_ip, own.axon_port) == (ip, port):
            return False
        async with self._lock:
            await asyncio.to_thread(self._chain.serve_axon, hotkey, ip, port)
        return True

    async def close(self) -> None:
        """Close the chain client once a running call has ended."""
        async with self._lock:
            await asyncio.to_thread(self._chain.close)

    def _read(self) -> Seen:
        return Seen(self._chain.metagraph(), self._chain.commitments())


class CallerPolicy:
    """Who may call this miner: registered validators with a permit and enough stake."""

    def __init__(self, view: ChainView, *, min_stake_rao: int) -> None:
        self._view = view
        self._min_stake_rao = min_stake_rao

    async def authorise(self, hotkey_ss58: str) -> None:
        """Return for a caller that may ask.

        Raises:
            Forbidden: ``not_registered`` or ``no_permit``.
        """
        try:
            neuron = self._view.seen.metagraph.by_hotkey(hotkey_ss58)
        except Unavailable as error:
            raise Forbidden(error.code, error.message, hint="try again shortly") from error
        if neuron is None:
            raise Forbidden(
                "not_registered",
                f"hotkey {hotkey_ss58} is not registered on this subnet",
                hint="register it; a registration counts once it is finalized",
            )
        if not neuron.validator_permit:
            raise Forbidden(
                "no_permit",
                f"hotkey {hotkey_ss58} holds no validator permit",
                hint="a permit comes with stake at the next epoch",
            )
        if neuron.stake_rao < self._min_stake_rao:
            raise Forbidden(
                "no_permit",
                f"the stake of {hotkey_ss58} is below this miner's minimum",
                hint=f"this miner serves validators with at least {self._min_stake_rao} rao",
            )
