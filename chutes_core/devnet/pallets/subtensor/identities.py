"""What owners say about themselves: identities, symbols, takes, and whose a hotkey is.

Invariant: only the coldkey that owns a thing describes it. Simplified: takes are stored and shown
but no emission is shared by them, and their rate limits are left out.
"""

from chutes_core.devnet.dispatch import Call, Context, Handler, ModuleFailure, Origin
from chutes_core.devnet.pallets.subtensor import neurons
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.scale import Reader

MAX_FIELD_BYTES = 1_024

_CALL_INDEX_BYTES = 2


def set_identity(context: Context, origin: Origin, call: Call) -> None:
    """Describe the signing coldkey, which owns a registered hotkey."""
    coldkey = origin.signed()
    owned = [str(key) for key in context.state.get(PALLET, "OwnedHotkeys", coldkey)]
    if not any(context.state.items(PALLET, "IsNetworkMember", key) for key in owned):
        raise ModuleFailure(PALLET, "HotKeyNotRegisteredInNetwork")
    context.state.put_raw(PALLET, "IdentitiesV2", coldkey, _fields(call, _CALL_INDEX_BYTES, 7))
    context.events.deposit(PALLET, "ChainIdentitySet", coldkey)


def set_subnet_identity(context: Context, origin: Origin, call: Call) -> None:
    """Describe a subnet."""
    netuid = int(call.args["netuid"])
    _check_subnet_owner(context, origin, netuid)
    identity = _fields(call, _CALL_INDEX_BYTES + 2, 8)
    context.state.put_raw(PALLET, "SubnetIdentitiesV3", netuid, identity)
    context.events.deposit(PALLET, "SubnetIdentitySet", netuid)


def update_symbol(context: Context, origin: Origin, call: Call) -> None:
    """Change a subnet's symbol."""
    netuid = int(call.args["netuid"])
    if not origin.is_root:
        _check_subnet_owner(context, origin, netuid)
    symbol = Reader(call.data, _CALL_INDEX_BYTES + 2).octets()
    used = {bytes(v) for _, v in context.state.items(PALLET, "TokenSymbol") if _is_bytes(v)}
    if symbol in used:
        raise ModuleFailure(PALLET, "SymbolAlreadyInUse")
    context.state.put(PALLET, "TokenSymbol", netuid, symbol)
    context.events.deposit(PALLET, "SymbolUpdated", {"netuid": netuid, "symbol": symbol})


def change_take(context: Context, origin: Origin, call: Call) -> None:
    """Raise or lower what a delegate keeps, within the chain's bounds."""
    coldkey, hotkey, take = origin.signed(), str(call.args["hotkey"]), int(call.args["take"])
    state, raises = context.state, call.function == "increase_take"
    if not neurons.is_owned(state, hotkey):
        raise ModuleFailure(PALLET, "HotKeyAccountNotExists")
    if neurons.owner_of(state, hotkey) != coldkey:
        raise ModuleFailure(PALLET, "NonAssociatedColdKey")
    current = int(state.get(PALLET, "Delegates", hotkey))
    if take < int(state.get(PALLET, "MinDelegateTake")) or (raises and take <= current):
        raise ModuleFailure(PALLET, "DelegateTakeTooLow")
    if take > int(state.get(PALLET, "MaxDelegateTake")):
        raise ModuleFailure(PALLET, "DelegateTakeTooHigh")
    if not raises and take >= current:
        raise ModuleFailure(PALLET, "DelegateTakeTooLow")
    state.put(PALLET, "Delegates", hotkey, take)
    name = "TakeIncreased" if raises else "TakeDecreased"
    context.events.deposit(PALLET, name, (coldkey, hotkey, take))


def try_associate_hotkey(context: Context, origin: Origin, call: Call) -> None:
    """Claim a hotkey that nobody owns; nothing happens otherwise."""
    coldkey, hotkey = origin.signed(), str(call.args["hotkey"])
    if not neurons.is_owned(context.state, hotkey):
        neurons.claim(context.state, hotkey, coldkey)


def _check_subnet_owner(context: Context, origin: Origin, netuid: int) -> None:
    if not neurons.exists(context.state, netuid):
        raise ModuleFailure(PALLET, "SubnetNotExists")
    if str(context.state.get(PALLET, "SubnetOwner", netuid)) != origin.signed():
        raise ModuleFailure(PALLET, "NotSubnetOwner")


def _fields(call: Call, start: int, count: int) -> bytes:
    reader = Reader(call.data, start)
    if any(len(reader.octets()) > MAX_FIELD_BYTES for _ in range(count)):
        raise ModuleFailure(PALLET, "InvalidIdentity")
    return call.data[start : reader.offset]


def _is_bytes(value: object) -> bool:
    return isinstance(value, bytes | bytearray | list)


CALLS: dict[str, Handler] = {
    "set_identity": set_identity,
    "set_subnet_identity": set_subnet_identity,
    "update_symbol": update_symbol,
    "increase_take": change_take,
    "decrease_take": change_take,
    "try_associate_hotkey": try_associate_hotkey,
}
