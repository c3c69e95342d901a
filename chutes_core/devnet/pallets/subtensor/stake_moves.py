"""Stake that changes its hotkey, subnet or owner, and stake that is taken out as a whole.

TAO and alpha trade one to one, so a move between subnets keeps its value. Invariant: what leaves
one position arrives at the other.
"""

from chutes_core.devnet import accounts
from chutes_core.devnet.dispatch import Call, Context, Handler, ModuleFailure, Origin
from chutes_core.devnet.pallets.subtensor import neurons, staking
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.pallets.subtensor.staking import ALPHA_PRICE_RAO, check_subnet_and_hotkey
from chutes_core.devnet.state import StateView


def move_stake(context: Context, origin: Origin, call: Call) -> None:
    """Move alpha to another hotkey, or to another subnet, or both."""
    coldkey = origin.signed()
    source, dest = str(call.args["origin_hotkey"]), str(call.args["destination_hotkey"])
    netuids = _netuids(call)
    _check_limit(call)
    if source == dest and netuids[0] == netuids[1]:
        raise ModuleFailure(PALLET, "SameNetuid")
    alpha = _move(context, call, (source, coldkey), (dest, coldkey))
    fields = (coldkey, source, netuids[0], dest, netuids[1], alpha)
    context.events.deposit(PALLET, "StakeMoved", fields)


def swap_stake(context: Context, origin: Origin, call: Call) -> None:
    """Move alpha of one hotkey between two subnets."""
    coldkey, hotkey = origin.signed(), str(call.args["hotkey"])
    netuids = _netuids(call)
    _check_limit(call)
    if netuids[0] == netuids[1]:
        raise ModuleFailure(PALLET, "SameNetuid")
    alpha = _move(context, call, (hotkey, coldkey), (hotkey, coldkey))
    context.events.deposit(PALLET, "StakeSwapped", (coldkey, hotkey, *netuids, alpha))


def transfer_stake(context: Context, origin: Origin, call: Call) -> None:
    """Give stake to another coldkey."""
    coldkey, hotkey = origin.signed(), str(call.args["hotkey"])
    dest, netuids = str(call.args["destination_coldkey"]), _netuids(call)
    if not all(context.state.get(PALLET, "TransferToggle", netuid) for netuid in netuids):
        raise ModuleFailure(PALLET, "TransferDisallowed")
    alpha = _move(context, call, (hotkey, coldkey), (hotkey, dest))
    fields = (coldkey, dest, hotkey, *netuids, alpha)
    context.events.deposit(PALLET, "StakeTransferred", fields)


def unstake_all(context: Context, origin: Origin, call: Call) -> None:
    """Turn all stake on one hotkey, on every subnet, back into TAO."""
    state, coldkey, hotkey = context.state, origin.signed(), str(call.args["hotkey"])
    if not neurons.is_owned(state, hotkey):
        raise ModuleFailure(PALLET, "HotKeyAccountNotExists")
    for netuid in staking.subnets_with_stake(state, hotkey, coldkey):
        _unstake(context, hotkey, coldkey, netuid)


def unstake_all_alpha(context: Context, origin: Origin, call: Call) -> None:
    """Move all stake on one hotkey from every subnet to root."""
    state, coldkey, hotkey = context.state, origin.signed(), str(call.args["hotkey"])
    if not neurons.is_owned(state, hotkey):
        raise ModuleFailure(PALLET, "HotKeyAccountNotExists")
    moved = 0
    for netuid in staking.subnets_with_stake(state, hotkey, coldkey):
        if netuid != 0:
            alpha = staking.coldkey_alpha(state, hotkey, coldkey, netuid)
            staking.decrease(state, hotkey, coldkey, netuid, alpha)
            moved += alpha
    if not moved:
        raise ModuleFailure(PALLET, "AmountTooLow")
    staking.increase(state, hotkey, coldkey, 0, moved)
    context.events.deposit(PALLET, "StakeAdded", (coldkey, hotkey, moved, moved, 0, 0))


def remove_stake_full_limit(context: Context, origin: Origin, call: Call) -> None:
    """Turn all stake on one hotkey and subnet back into TAO, unless alpha sells for less."""
    coldkey, hotkey, netuid = origin.signed(), str(call.args["hotkey"]), int(call.args["netuid"])
    check_subnet_and_hotkey(context.state, netuid, hotkey)
    if int(call.args["limit_price"] or 0) > ALPHA_PRICE_RAO:
        raise ModuleFailure(PALLET, "SlippageTooHigh")
    _unstake(context, hotkey, coldkey, netuid)


def _unstake(context: Context, hotkey: str, coldkey: str, netuid: int) -> None:
    alpha = staking.coldkey_alpha(context.state, hotkey, coldkey, netuid)
    if alpha == 0:
        raise ModuleFailure(PALLET, "NotEnoughStakeToWithdraw")
    staking.decrease(context.state, hotkey, coldkey, netuid, alpha)
    accounts.endow(context.state, context.events, coldkey, alpha)
    context.events.deposit(PALLET, "StakeRemoved", (coldkey, hotkey, alpha, alpha, netuid, 0))


def _move(context: Context, call: Call, source: tuple[str, str], dest: tuple[str, str]) -> int:
    """Move between two positions, each a hotkey and a coldkey; return the alpha moved."""
    state, (first, second) = context.state, _netuids(call)
    alpha = int(call.args["alpha_amount"])
    check_subnet_and_hotkey(state, first, source[0])
    check_subnet_and_hotkey(state, second, dest[0])
    if alpha < staking.MIN_STAKE_RAO:
        raise ModuleFailure(PALLET, "AmountTooLow")
    if _held(state, source, first) < alpha:
        raise ModuleFailure(PALLET, "NotEnoughStakeToWithdraw")
    staking.decrease(state, *source, first, alpha)
    staking.increase(state, *dest, second, alpha)
    return alpha


def _held(state: StateView, position: tuple[str, str], netuid: int) -> int:
    return staking.coldkey_alpha(state, *position, netuid)


def _netuids(call: Call) -> tuple[int, int]:
    return int(call.args["origin_netuid"]), int(call.args["destination_netuid"])


def _check_limit(call: Call) -> None:
    if int(call.args.get("limit_price", 0)) > ALPHA_PRICE_RAO:
        raise ModuleFailure(PALLET, "SlippageTooHigh")


CALLS: dict[str, Handler] = {
    "move_stake": move_stake,
    "move_stake_limit": move_stake,
    "swap_stake": swap_stake,
    "swap_stake_limit": swap_stake,
    "transfer_stake": transfer_stake,
    "unstake_all": unstake_all,
    "unstake_all_alpha": unstake_all_alpha,
    "remove_stake_full_limit": remove_stake_full_limit,
}
