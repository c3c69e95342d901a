"""What each call does, one file per pallet.

Invariant: a call that is not in this table is refused before it costs anything.
"""

from chutes_core.devnet.dispatch import Handler
from chutes_core.devnet.pallets import (
    admin_utils,
    balances,
    commitments,
    mev_shield,
    proxy,
    subtensor,
    sudo,
    system,
    timestamp,
    utility,
)

_PALLETS: dict[str, dict[str, Handler]] = {
    "System": system.CALLS,
    "Timestamp": timestamp.CALLS,
    "Balances": balances.CALLS,
    "SubtensorModule": subtensor.CALLS,
    "Utility": utility.CALLS,
    "Sudo": sudo.CALLS,
    "Proxy": proxy.CALLS,
    "Commitments": commitments.CALLS,
    "AdminUtils": admin_utils.CALLS,
    "MevShield": mev_shield.CALLS,
}


def handler_of(pallet: str, function: str) -> Handler | None:
    """Return what runs a call, or None when the devnet does not know it."""
    return _PALLETS.get(pallet, {}).get(function)
