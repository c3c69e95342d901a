"""SubtensorModule: subnets, neurons, serving, weights, stake. One file per concern."""

from chutes_core.devnet.dispatch import Handler
from chutes_core.devnet.pallets.subtensor import (
    commits,
    identities,
    registration,
    serving,
    stake_moves,
    staking,
    subnets,
    weights,
)

CALLS: dict[str, Handler] = {
    **subnets.CALLS,
    **registration.CALLS,
    **serving.CALLS,
    **weights.CALLS,
    **commits.CALLS,
    **staking.CALLS,
    **stake_moves.CALLS,
    **identities.CALLS,
}
