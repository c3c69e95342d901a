"""Subnets: creation by genesis or by `register_network`, activation by `start_call`.

Invariant: a subnet has an owner whose hotkey holds uid 0. Simplified: the lock cost is constant.
"""

from chutes_core.devnet import accounts
from chutes_core.devnet.dispatch import Call, Context, Handler, ModuleFailure, Origin
from chutes_core.devnet.pallets.subtensor import neurons
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.state import StateWriter

MAX_NETWORKS = 128
POOL_RAO = 1_000_000_000_000_000  # both sides of the pool, so that one alpha is worth one TAO


def create(
    state: StateWriter, netuid: int, *, owner: str, hotkey: str, block: int, tempo: int
) -> None:
    """Write a subnet with its owner at uid 0."""
    state.put(PALLET, "NetworksAdded", netuid, True)
    state.put(PALLET, "TotalNetworks", int(state.get(PALLET, "TotalNetworks")) + 1)
    state.put(PALLET, "NetworkRegisteredAt", netuid, block)
    state.put(PALLET, "Tempo", netuid, tempo)
    state.put(PALLET, "LastEpochBlock", netuid, block)
    state.put(PALLET, "SubnetOwner", netuid, owner)
    state.put(PALLET, "SubnetOwnerHotkey", netuid, hotkey)
    state.put(PALLET, "SubnetMechanism", netuid, 1)
    state.put(PALLET, "SubnetTAO", netuid, POOL_RAO)
    state.put(PALLET, "SubnetAlphaIn", netuid, POOL_RAO)
    if not neurons.is_owned(state, hotkey):
        neurons.claim(state, hotkey, owner)
    neurons.append(state, netuid, hotkey, block)


def register_network(context: Context, origin: Origin, call: Call) -> None:
    """Create a subnet for the network's lock cost."""
    state, owner, hotkey = context.state, origin.signed(), str(call.args["hotkey"])
    if neurons.is_owned(state, hotkey) and neurons.owner_of(state, hotkey) != owner:
        raise ModuleFailure(PALLET, "NonAssociatedColdKey")
    netuid = next((n for n in range(1, MAX_NETWORKS) if not neurons.exists(state, n)), None)
    if netuid is None:
        raise ModuleFailure(PALLET, "SubnetLimitReached")
    cost_rao = lock_cost_rao(context)
    if accounts.free_rao(state, owner) < cost_rao + accounts.EXISTENTIAL_DEPOSIT_RAO:
        raise ModuleFailure(PALLET, "CannotAffordLockCost")
    accounts.take(state, context.events, owner, cost_rao, keep_alive=True)
    state.put(PALLET, "SubnetLocked", netuid, cost_rao)
    tempo = int(state.get(PALLET, "Tempo", netuid))
    create(state, netuid, owner=owner, hotkey=hotkey, block=context.block, tempo=tempo)
    context.events.deposit(PALLET, "NetworkAdded", (netuid, 1))


def register_network_with_identity(context: Context, origin: Origin, call: Call) -> None:
    """Create a subnet and describe it."""
    register_network(context, origin, call)
    identity = call.args["identity"]
    if identity is not None:
        netuid = max(int(n) for n, added in context.state.items(PALLET, "NetworksAdded") if added)
        context.state.put(PALLET, "SubnetIdentitiesV3", netuid, identity)
        context.events.deposit(PALLET, "SubnetIdentitySet", netuid)


def start_call(context: Context, origin: Origin, call: Call) -> None:
    """Activate a subnet: its epochs emit, its alpha can be staked."""
    state, netuid = context.state, int(call.args["netuid"])
    if not neurons.exists(state, netuid):
        raise ModuleFailure(PALLET, "SubnetNotExists")
    if str(state.get(PALLET, "SubnetOwner", netuid)) != origin.signed():
        raise ModuleFailure(PALLET, "NotSubnetOwner")
    registered = int(state.get(PALLET, "NetworkRegisteredAt", netuid))
    if context.block < registered + int(state.get(PALLET, "StartCallDelay")):
        raise ModuleFailure(PALLET, "NeedWaitingMoreBlocksToStarCall")
    if state.get(PALLET, "FirstEmissionBlockNumber", netuid) is not None:
        raise ModuleFailure(PALLET, "FirstEmissionBlockNumberAlreadySet")
    activate(state, netuid, context.block)
    first = context.block + 1
    context.events.deposit(PALLET, "FirstEmissionBlockNumberSet", (netuid, first))


def activate(state: StateWriter, netuid: int, block: int) -> None:
    """Let emission begin with the block after ``block``."""
    state.put(PALLET, "FirstEmissionBlockNumber", netuid, block + 1)
    state.put(PALLET, "SubtokenEnabled", netuid, True)


def lock_cost_rao(context: Context) -> int:
    """Return what a new subnet costs."""
    return int(context.state.get(PALLET, "NetworkMinLockCost"))


CALLS: dict[str, Handler] = {
    "register_network": register_network,
    "register_network_with_identity": register_network_with_identity,
    "start_call": start_call,
}
