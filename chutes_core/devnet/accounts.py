"""Balances and nonces of accounts, as System.Account holds them.

Used by the executor (fees, nonces) and by pallets that move TAO. Invariant: an account exists
exactly while its free balance reaches the existential deposit, and Balances.TotalIssuance is the
sum of all free balances.
"""

from typing import Any

from chutes_core.devnet.dispatch import Context, TokenFailure
from chutes_core.devnet.events import EventLog
from chutes_core.devnet.state import StateView, StateWriter

EXISTENTIAL_DEPOSIT_RAO = 500

_NEW_LOGIC_FLAG = 1 << 127


def free_rao(state: StateView, account: str) -> int:
    """Return the free balance."""
    return int(state.get("System", "Account", account)["data"]["free"])


def nonce(state: StateView, account: str) -> int:
    """Return the next nonce."""
    return int(state.get("System", "Account", account)["nonce"])


def bump_nonce(state: StateWriter, account: str) -> None:
    """Use up one nonce."""
    record = state.get("System", "Account", account)
    record["nonce"] += 1
    state.put("System", "Account", account, record)


def endow(state: StateWriter, events: EventLog, account: str, value_rao: int) -> None:
    """Add to an account, creating it when it is new.

    Raises:
        TokenFailure: ``BelowMinimum`` when a new account would be too small to exist.
    """
    record = state.get("System", "Account", account)
    is_new = record["providers"] == 0
    if is_new:
        if value_rao < EXISTENTIAL_DEPOSIT_RAO:
            raise TokenFailure("BelowMinimum")
        record["providers"] = 1
        events.deposit("System", "NewAccount", {"account": account})
        events.deposit("Balances", "Endowed", {"account": account, "free_balance": value_rao})
    _write(state, account, record, record["data"]["free"] + value_rao)


def take(
    state: StateWriter, events: EventLog, account: str, value_rao: int, *, keep_alive: bool
) -> None:
    """Remove from an account; what is left below the existential deposit is lost as dust.

    Raises:
        TokenFailure: ``FundsUnavailable``, or ``NotExpendable`` when it must stay alive.
    """
    record = state.get("System", "Account", account)
    left = record["data"]["free"] - value_rao
    if left < 0:
        raise TokenFailure("FundsUnavailable")
    if left >= EXISTENTIAL_DEPOSIT_RAO:
        _write(state, account, record, left)
        return
    if keep_alive:
        raise TokenFailure("NotExpendable")
    _adjust_issuance(state, -record["data"]["free"])
    state.remove("System", "Account", account)
    events.deposit("System", "KilledAccount", {"account": account})
    if left:
        events.deposit("Balances", "DustLost", {"account": account, "amount": left})


def transfer(context: Context, source: str, dest: str, value_rao: int, *, keep_alive: bool) -> None:
    """Move TAO between accounts and deposit the Transfer event.

    Raises:
        TokenFailure: the source lacks it, must stay alive, or the destination would be too small.
    """
    if source != dest:
        take(context.state, context.events, source, value_rao, keep_alive=keep_alive)
        endow(context.state, context.events, dest, value_rao)
    elif free_rao(context.state, source) < value_rao:
        raise TokenFailure("FundsUnavailable")
    context.events.deposit(
        "Balances", "Transfer", {"from": source, "to": dest, "amount": value_rao}
    )


def _write(state: StateWriter, account: str, record: dict[str, Any], free: int) -> None:
    _adjust_issuance(state, free - record["data"]["free"])
    record["data"]["free"] = free
    record["data"]["flags"] = _NEW_LOGIC_FLAG
    state.put("System", "Account", account, record)


def _adjust_issuance(state: StateWriter, change: int) -> None:
    issuance = int(state.get("Balances", "TotalIssuance"))
    state.put("Balances", "TotalIssuance", issuance + change)
