"""Registration of a neuron for the subnet's burn.

Order of the checks, as on the chain: subnet, registration allowed, not registered yet, ownership,
price limit, balance, slot; then pay, register, event. Invariant: who pays gets a uid, and who
gets no uid pays only the fee. Each registration multiplies the burn by BurnIncreaseMult, and it
halves every BurnHalfLife blocks, within MinBurn and MaxBurn. Simplified: no limit of registrations
per block or interval, no proof of work, and the burn buys no alpha.
"""

from chutes_core.devnet import accounts
from chutes_core.devnet.dispatch import Call, Context, Handler, ModuleFailure, Origin
from chutes_core.devnet.pallets.subtensor import neurons
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.state import StateView, StateWriter

_ONE = 1 << 32
_FIXED_ONE = 1 << 64  # BurnIncreaseMult has 64 fractional bits


def burned_register(context: Context, origin: Origin, call: Call) -> None:
    """Register a hotkey at the current burn."""
    _register(context, origin.signed(), call, limit_rao=None)


def register_limit(context: Context, origin: Origin, call: Call) -> None:
    """Register a hotkey unless the burn is above ``limit_price``."""
    _register(context, origin.signed(), call, limit_rao=int(call.args["limit_price"]))


def _register(context: Context, coldkey: str, call: Call, *, limit_rao: int | None) -> None:
    state, netuid, hotkey = context.state, int(call.args["netuid"]), str(call.args["hotkey"])
    _check_allowed(state, netuid, hotkey, coldkey)
    burn_rao = int(state.get(PALLET, "Burn", netuid))
    if limit_rao is not None and burn_rao > limit_rao:
        raise ModuleFailure(PALLET, "RegistrationPriceLimitExceeded")
    if accounts.free_rao(state, coldkey) < burn_rao + accounts.EXISTENTIAL_DEPOSIT_RAO:
        raise ModuleFailure(PALLET, "NotEnoughBalanceToStake")
    slot = find_slot(state, netuid, context.block)
    if slot is None:
        raise ModuleFailure(PALLET, "NoNeuronIdAvailable")
    accounts.take(state, context.events, coldkey, burn_rao, keep_alive=True)
    context.events.deposit("Balances", "Withdraw", {"who": coldkey, "amount": burn_rao})
    recycled = int(state.get(PALLET, "RAORecycledForRegistration", netuid))
    state.put(PALLET, "RAORecycledForRegistration", netuid, recycled + burn_rao)
    if not neurons.is_owned(state, hotkey):
        neurons.claim(state, hotkey, coldkey)
    if slot == neurons.count(state, netuid):
        neurons.append(state, netuid, hotkey, context.block)
    else:
        neurons.replace(state, netuid, slot, hotkey, context.block)
    _raise_burn(state, netuid)
    context.events.deposit(PALLET, "NeuronRegistered", (netuid, slot, hotkey))


def _check_allowed(state: StateView, netuid: int, hotkey: str, coldkey: str) -> None:
    if netuid == 0:
        raise ModuleFailure(PALLET, "RegistrationNotPermittedOnRootSubnet")
    if not neurons.exists(state, netuid):
        raise ModuleFailure(PALLET, "SubnetNotExists")
    if not state.get(PALLET, "NetworkRegistrationAllowed", netuid):
        raise ModuleFailure(PALLET, "SubNetRegistrationDisabled")
    if neurons.uid_of(state, netuid, hotkey) is not None:
        raise ModuleFailure(PALLET, "HotKeyAlreadyRegisteredInSubNet")
    if neurons.is_owned(state, hotkey) and neurons.owner_of(state, hotkey) != coldkey:
        raise ModuleFailure(PALLET, "NonAssociatedColdKey")


def find_slot(state: StateView, netuid: int, block: int) -> int | None:
    """Return the uid a new neuron would get, or None when the subnet is full of immune ones.

    A full subnet gives the uid of the non-immune neuron with the lowest emission; ties go to the
    older registration, then to the lower uid. The subnet owner's hotkey is always immune.
    """
    number = neurons.count(state, netuid)
    if number < int(state.get(PALLET, "MaxAllowedUids", netuid)):
        return number
    immunity = int(state.get(PALLET, "ImmunityPeriod", netuid))
    emission = neurons.vector(state, "Emission", netuid)
    owner = str(state.get(PALLET, "SubnetOwnerHotkey", netuid))
    candidates = []
    for uid in range(number):
        registered = int(state.get(PALLET, "BlockAtRegistration", netuid, uid))
        is_owner = neurons.hotkey_of(state, netuid, uid) == owner
        if not is_owner and block - registered >= immunity:
            candidates.append((emission[uid], registered, uid))
    return min(candidates)[2] if candidates else None


def decay_burn(state: StateWriter, netuid: int) -> None:
    """Let a block's worth of the burn go."""
    burn, floor = (int(state.get(PALLET, item, netuid)) for item in ("Burn", "MinBurn"))
    half_life = int(state.get(PALLET, "BurnHalfLife", netuid))
    if burn <= floor or not half_life:
        return
    kept = round(_ONE * 0.5 ** (1 / half_life))
    state.put(PALLET, "Burn", netuid, max(floor, burn * kept // _ONE))


def _raise_burn(state: StateWriter, netuid: int) -> None:
    burn, low, high = (
        int(state.get(PALLET, item, netuid)) for item in ("Burn", "MinBurn", "MaxBurn")
    )
    factor = int(state.get(PALLET, "BurnIncreaseMult", netuid)["bits"])
    state.put(PALLET, "Burn", netuid, max(low, min(high, burn * factor // _FIXED_ONE)))


CALLS: dict[str, Handler] = {
    "burned_register": burned_register,
    "register_limit": register_limit,
}
