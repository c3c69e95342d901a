"""Balances: transfers, burning, and what root may force.

`accounts` holds the rules; this file maps the calls' arguments to them. Invariant: what leaves one
account arrives at the other, and what is burned leaves the issuance.
"""

from chutes_core.devnet import accounts
from chutes_core.devnet.dispatch import Call, Context, Handler, Origin


def transfer_keep_alive(context: Context, origin: Origin, call: Call) -> None:
    """Transfer, refusing to kill the sender's account."""
    _transfer(context, origin, call, keep_alive=True)


def transfer_allow_death(context: Context, origin: Origin, call: Call) -> None:
    """Transfer, even when the sender's account ends by it."""
    _transfer(context, origin, call, keep_alive=False)


def transfer_all(context: Context, origin: Origin, call: Call) -> None:
    """Transfer all there is, less the existential deposit with ``keep_alive``."""
    source = origin.signed()
    keep_alive = bool(call.args["keep_alive"])
    value_rao = accounts.free_rao(context.state, source)
    if keep_alive:
        value_rao = max(0, value_rao - accounts.EXISTENTIAL_DEPOSIT_RAO)
    dest = str(call.args["dest"])
    accounts.transfer(context, source, dest, value_rao, keep_alive=keep_alive)


def burn(context: Context, origin: Origin, call: Call) -> None:
    """Destroy TAO of the signer."""
    who, value_rao = origin.signed(), int(call.args["value"])
    keep_alive = bool(call.args["keep_alive"])
    accounts.take(context.state, context.events, who, value_rao, keep_alive=keep_alive)
    context.events.deposit("Balances", "Burned", {"who": who, "amount": value_rao})


def force_transfer(context: Context, origin: Origin, call: Call) -> None:
    """Transfer out of somebody else's account, as root."""
    origin.root()
    source, dest = str(call.args["source"]), str(call.args["dest"])
    accounts.transfer(context, source, dest, int(call.args["value"]), keep_alive=False)


def force_set_balance(context: Context, origin: Origin, call: Call) -> None:
    """Set an account's free balance, as root."""
    origin.root()
    who, wanted = str(call.args["who"]), int(call.args["new_free"])
    change = wanted - accounts.free_rao(context.state, who)
    if change > 0:
        accounts.endow(context.state, context.events, who, change)
    elif change < 0:
        accounts.take(context.state, context.events, who, -change, keep_alive=False)
    context.events.deposit("Balances", "BalanceSet", {"who": who, "free": wanted})


def _transfer(context: Context, origin: Origin, call: Call, *, keep_alive: bool) -> None:
    value_rao = int(call.args["value"])
    dest = str(call.args["dest"])
    accounts.transfer(context, origin.signed(), dest, value_rao, keep_alive=keep_alive)


CALLS: dict[str, Handler] = {
    "transfer_keep_alive": transfer_keep_alive,
    "transfer_allow_death": transfer_allow_death,
    "transfer_all": transfer_all,
    "burn": burn,
    "force_transfer": force_transfer,
    "force_set_balance": force_set_balance,
}
