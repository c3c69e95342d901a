"""Balances: the three transfers. Invariant: what leaves one account arrives at the other.

`accounts` holds the rules; this file maps the calls' arguments to them.
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


def _transfer(context: Context, origin: Origin, call: Call, *, keep_alive: bool) -> None:
    value_rao = int(call.args["value"])
    dest = str(call.args["dest"])
    accounts.transfer(context, origin.signed(), dest, value_rao, keep_alive=keep_alive)


CALLS: dict[str, Handler] = {
    "transfer_keep_alive": transfer_keep_alive,
    "transfer_allow_death": transfer_allow_death,
    "transfer_all": transfer_all,
}
