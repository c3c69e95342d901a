"""What a registration costs and risks, and the coldkey-signed call that makes it.

Used by scripts/register.py, on the machine where the coldkey is; neurons never call it. Invariant:
with a price limit the *chain* enforces it (register_limit), not an earlier look at the price; a
hotkey that is registered already is never paid for again.
"""

from dataclasses import dataclass
from typing import Any

import bittensor as bt

from chutes_core.base.errors import ChainError
from chutes_core.chain.client import ChainClient
from chutes_core.chain.extrinsics import Receipt
from chutes_core.chain.metagraph import Metagraph, Neuron
from chutes_core.chain.subnet import Subnet


@dataclass(frozen=True)
class RegistrationOffer:
    """What registering means now. Blocks and rao; ``prune`` is who would lose its uid."""

    netuid: int
    hotkey_ss58: str
    coldkey_ss58: str
    registered: Neuron | None
    registration_allowed: bool
    burn_rao: int
    balance_rao: int
    immunity_blocks: int
    immunity_seconds: float
    slots_used: int
    slots_max: int
    prune: Neuron | None

    @property
    def full(self) -> bool:
        """Tell whether a registration takes another neuron's slot."""
        return self.slots_used >= self.slots_max


def offer(client: ChainClient, hotkey_ss58: str, coldkey_ss58: str) -> RegistrationOffer:
    """Return what it would cost and risk to register a hotkey now.

    Raises:
        NotFound: ``no_such_subnet``.
        Unavailable: the node stayed unreachable.
    """
    subnet, metagraph = client.subnet(), client.metagraph()
    full = subnet.neuron_count >= subnet.max_uids
    return RegistrationOffer(
        netuid=client.netuid,
        hotkey_ss58=hotkey_ss58,
        coldkey_ss58=coldkey_ss58,
        registered=metagraph.by_hotkey(hotkey_ss58),
        registration_allowed=subnet.registration_allowed,
        burn_rao=subnet.burn_rao,
        balance_rao=client.balance_rao(coldkey_ss58),
        immunity_blocks=subnet.immunity_period,
        immunity_seconds=subnet.immunity_period * subnet.block_seconds,
        slots_used=subnet.neuron_count,
        slots_max=subnet.max_uids,
        prune=prune_candidate(metagraph, subnet) if full else None,
    )


def prune_candidate(metagraph: Metagraph, subnet: Subnet) -> Neuron | None:
    """Return the neuron that a registration would replace on a full subnet, as far as one can see.

    The chain takes the non-immune neuron with the lowest emission, then the oldest registration,
    then the lowest uid, and never the subnet owner's; incentive stands in for emission here, and
    validators earn otherwise, so neurons with a permit are left out.
    """
    candidates = [
        neuron
        for neuron in metagraph.neurons
        if subnet.block - neuron.registered_at_block >= subnet.immunity_period
        and neuron.hotkey != subnet.owner_hotkey
        and not neuron.validator_permit
    ]
    return min(candidates, key=lambda n: (n.incentive, n.registered_at_block, n.uid), default=None)


def check(offered: RegistrationOffer, max_burn_rao: int | None) -> None:
    """Check that an attempt makes sense before a coldkey is unlocked.

    Raises:
        ChainError: ``registration_closed``, ``insufficient_balance`` or ``burn_over_limit``.
    """
    if not offered.registration_allowed:
        raise ChainError(
            "registration_closed",
            f"subnet {offered.netuid} takes no registrations now",
            hint="ask the subnet's owner",
        )
    if max_burn_rao is not None and offered.burn_rao > max_burn_rao:
        raise ChainError(
            "burn_over_limit",
            f"the price is {offered.burn_rao} rao, above your limit of {max_burn_rao}",
            hint="the price falls between registrations; wait, or raise --max-burn",
        )
    if offered.balance_rao <= offered.burn_rao:
        raise ChainError(
            "insufficient_balance",
            f"the coldkey holds {offered.balance_rao} rao; the price is {offered.burn_rao}",
            hint="send TAO to the coldkey; it needs the price and the fee",
        )


def register(
    client: ChainClient, coldkey: Any, hotkey_ss58: str, max_burn_rao: int | None
) -> Receipt:
    """Register a hotkey, paid by its coldkey, and wait for finality.

    Args:
        client: of the subnet.
        coldkey: the unlocked coldkey pair.
        hotkey_ss58: who gets the uid.
        max_burn_rao: highest price, enforced by the chain at execution; None for any price.

    Raises:
        ChainError: refused, e.g. ``burn_over_limit`` or ``insufficient_balance``.
        Unavailable: the node stayed unreachable.
    """
    if max_burn_rao is None:
        call = bt.calls.SubtensorModule.burned_register(netuid=client.netuid, hotkey=hotkey_ss58)
    else:
        call = bt.calls.SubtensorModule.register_limit(
            netuid=client.netuid, hotkey=hotkey_ss58, limit_price=max_burn_rao
        )
    return client.call(coldkey, call, "register the hotkey")
