"""Stake as shares of a hotkey's pool on a subnet.

Emission grows the pool, so every share is worth more. Simplified: TAO and alpha trade one to one,
without a market. Invariant: the shares of all coldkeys sum to the pool's shares, and rounding
never pays out more than the pool holds.
"""

from chutes_core.devnet import accounts
from chutes_core.devnet.dispatch import Call, Context, Handler, ModuleFailure, Origin
from chutes_core.devnet.pallets.subtensor import neurons
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.state import StateView, StateWriter

MIN_STAKE_RAO = 2_000_000
ALPHA_PRICE_RAO = 1_000_000_000  # per alpha: one to one

_ONE = 1 << 64  # FixedU128 has 64 fractional bits


def hotkey_alpha(state: StateView, hotkey: str, netuid: int) -> int:
    """Return all alpha staked to a hotkey on a subnet."""
    return int(state.get(PALLET, "TotalHotkeyAlpha", hotkey, netuid))


def coldkey_alpha(state: StateView, hotkey: str, coldkey: str, netuid: int) -> int:
    """Return one coldkey's part of a hotkey's alpha."""
    total = _shares(state, "TotalHotkeyShares", hotkey, netuid)
    own = _shares(state, "Alpha", hotkey, coldkey, netuid)
    return hotkey_alpha(state, hotkey, netuid) * own // total if total else 0


def increase(state: StateWriter, hotkey: str, coldkey: str, netuid: int, alpha: int) -> None:
    """Add stake of one coldkey at the pool's current price of a share."""
    pool = hotkey_alpha(state, hotkey, netuid)
    total = _shares(state, "TotalHotkeyShares", hotkey, netuid)
    bought = alpha * total // pool if pool and total else alpha * _ONE
    own = _shares(state, "Alpha", hotkey, coldkey, netuid)
    _write(state, hotkey, coldkey, netuid, own + bought, total + bought, pool + alpha)
    known = [str(key) for key in state.get(PALLET, "StakingHotkeys", coldkey)]
    if hotkey not in known:
        state.put(PALLET, "StakingHotkeys", coldkey, [*known, hotkey])


def decrease(state: StateWriter, hotkey: str, coldkey: str, netuid: int, alpha: int) -> None:
    """Remove stake of one coldkey; the caller has checked that it is there."""
    pool = hotkey_alpha(state, hotkey, netuid)
    total = _shares(state, "TotalHotkeyShares", hotkey, netuid)
    own = _shares(state, "Alpha", hotkey, coldkey, netuid)
    sold = min(own, -(-alpha * total // pool))
    _write(state, hotkey, coldkey, netuid, own - sold, total - sold, pool - alpha)


def emit(state: StateWriter, hotkey: str, netuid: int, alpha: int) -> None:
    """Grow a hotkey's pool; without any share yet, its owner gets the first one."""
    if _shares(state, "TotalHotkeyShares", hotkey, netuid) == 0:
        increase(state, hotkey, neurons.owner_of(state, hotkey), netuid, alpha)
        return
    pool = hotkey_alpha(state, hotkey, netuid)
    state.put(PALLET, "TotalHotkeyAlpha", hotkey, netuid, pool + alpha)


def add_stake(context: Context, origin: Origin, call: Call) -> None:
    """Stake TAO to a hotkey, unless alpha costs more than ``limit_price`` where one is given."""
    if int(call.args.get("limit_price", ALPHA_PRICE_RAO)) < ALPHA_PRICE_RAO:
        raise ModuleFailure(PALLET, "SlippageTooHigh")
    state, coldkey = context.state, origin.signed()
    hotkey, netuid = str(call.args["hotkey"]), int(call.args["netuid"])
    tao_rao = int(call.args["amount_staked"])
    check_subnet_and_hotkey(state, netuid, hotkey)
    if tao_rao < MIN_STAKE_RAO:
        raise ModuleFailure(PALLET, "AmountTooLow")
    if accounts.free_rao(state, coldkey) < tao_rao + accounts.EXISTENTIAL_DEPOSIT_RAO:
        raise ModuleFailure(PALLET, "NotEnoughBalanceToStake")
    accounts.take(state, context.events, coldkey, tao_rao, keep_alive=True)
    increase(state, hotkey, coldkey, netuid, tao_rao)
    context.events.deposit(PALLET, "StakeAdded", (coldkey, hotkey, tao_rao, tao_rao, netuid, 0))


def remove_stake(context: Context, origin: Origin, call: Call) -> None:
    """Turn stake back into TAO, unless alpha sells below ``limit_price`` where one is given."""
    if int(call.args.get("limit_price", ALPHA_PRICE_RAO)) > ALPHA_PRICE_RAO:
        raise ModuleFailure(PALLET, "SlippageTooHigh")
    state, coldkey = context.state, origin.signed()
    hotkey, netuid = str(call.args["hotkey"]), int(call.args["netuid"])
    alpha = int(call.args["amount_unstaked"])
    check_subnet_and_hotkey(state, netuid, hotkey)
    if alpha == 0:
        raise ModuleFailure(PALLET, "AmountTooLow")
    if coldkey_alpha(state, hotkey, coldkey, netuid) < alpha:
        raise ModuleFailure(PALLET, "NotEnoughStakeToWithdraw")
    decrease(state, hotkey, coldkey, netuid, alpha)
    accounts.endow(state, context.events, coldkey, alpha)
    context.events.deposit(PALLET, "StakeRemoved", (coldkey, hotkey, alpha, alpha, netuid, 0))


def subnets_with_stake(state: StateView, hotkey: str, coldkey: str) -> list[int]:
    """Return where a coldkey has stake on a hotkey, in order."""
    netuids = sorted(int(netuid) for netuid, added in state.items(PALLET, "NetworksAdded") if added)
    return [netuid for netuid in netuids if coldkey_alpha(state, hotkey, coldkey, netuid)]


def check_subnet_and_hotkey(state: StateView, netuid: int, hotkey: str) -> None:
    """Insist that the subnet trades and that somebody owns the hotkey."""
    if not neurons.exists(state, netuid):
        raise ModuleFailure(PALLET, "SubnetNotExists")
    if netuid and not state.get(PALLET, "SubtokenEnabled", netuid):
        raise ModuleFailure(PALLET, "SubtokenDisabled")
    if not neurons.is_owned(state, hotkey):
        raise ModuleFailure(PALLET, "HotKeyAccountNotExists")


def _shares(state: StateView, item: str, *params: object) -> int:
    return int(state.get(PALLET, item, *params)["bits"])


def _write(
    state: StateWriter, hotkey: str, coldkey: str, netuid: int, own: int, total: int, pool: int
) -> None:
    state.put(PALLET, "Alpha", hotkey, coldkey, netuid, {"bits": own})
    state.put(PALLET, "TotalHotkeyShares", hotkey, netuid, {"bits": total})
    state.put(PALLET, "TotalHotkeyAlpha", hotkey, netuid, pool)


CALLS: dict[str, Handler] = {
    "add_stake": add_stake,
    "add_stake_limit": add_stake,
    "remove_stake": remove_stake,
    "remove_stake_limit": remove_stake,
}
