"""Proxy: one account acts for another.

Invariant: a proxied call runs with the real account's origin only if that account registered the
signer, without delay, for a type that covers the call.
"""

from collections.abc import Callable
from typing import Any

from chutes_core.devnet.dispatch import (
    Call,
    Context,
    DispatchFailure,
    Handler,
    ModuleFailure,
    Origin,
)

MAX_PROXIES = 20
_TRANSFER_CALLS = {("Balances", name) for name in ("transfer_keep_alive", "transfer_allow_death")}
_COVERS: dict[str, Callable[[Call], bool]] = {
    "Any": lambda call: True,
    "NonTransfer": lambda call: call.pallet != "Balances",
    "Transfer": lambda call: call.pallet == "Balances",
    "SmallTransfer": lambda call: (
        (call.pallet, call.function) in _TRANSFER_CALLS and int(call.args["value"]) < 500_000_000
    ),
    "Registration": lambda call: call.function in {"burned_register", "register_limit"},
    "Staking": lambda call: call.function in {"add_stake", "remove_stake"},
}


def proxy(context: Context, origin: Origin, call: Call) -> None:
    """Dispatch the inner call as ``real``."""
    signer, real = origin.signed(), str(call.args["real"])
    forced = call.args["force_proxy_type"]
    entry = next(
        (
            found
            for found in _definitions(context, real)
            if found["delegate"] == signer and forced in {None, found["proxy_type"]}
        ),
        None,
    )
    if entry is None:
        raise ModuleFailure("Proxy", "NotProxy")
    if entry["delay"]:
        raise ModuleFailure("Proxy", "Unannounced")
    inner = context.codec.nested_call(call.args["call"])
    result: object = {"Ok": None}
    try:
        covers = _COVERS.get(entry["proxy_type"])
        if covers is None or not covers(inner):
            raise ModuleFailure("System", "CallFiltered")
        context.dispatch(Origin(real), inner)
    except DispatchFailure as failure:
        result = {"Err": failure.value(context.codec)}
    context.events.deposit("Proxy", "ProxyExecuted", {"result": result})


def add_proxy(context: Context, origin: Origin, call: Call) -> None:
    """Let ``delegate`` act for the signer."""
    account, entry = origin.signed(), _entry(call)
    if entry["delegate"] == account:
        raise ModuleFailure("Proxy", "NoSelfProxy")
    known = _definitions(context, account)
    if entry in known:
        raise ModuleFailure("Proxy", "Duplicate")
    if len(known) >= MAX_PROXIES:
        raise ModuleFailure("Proxy", "TooMany")
    context.state.put("Proxy", "Proxies", account, ([*known, entry], 0))
    context.events.deposit("Proxy", "ProxyAdded", _event(account, entry))


def remove_proxy(context: Context, origin: Origin, call: Call) -> None:
    """End what `add_proxy` began."""
    account, entry = origin.signed(), _entry(call)
    known = _definitions(context, account)
    if entry not in known:
        raise ModuleFailure("Proxy", "NotFound")
    known.remove(entry)
    context.state.put("Proxy", "Proxies", account, (known, 0))
    context.events.deposit("Proxy", "ProxyRemoved", _event(account, entry))


def remove_proxies(context: Context, origin: Origin, _call: Call) -> None:
    """End all of them."""
    account = origin.signed()
    for entry in _definitions(context, account):
        context.events.deposit("Proxy", "ProxyRemoved", _event(account, entry))
    context.state.remove("Proxy", "Proxies", account)


def _entry(call: Call) -> dict[str, Any]:
    return {name: call.args[name] for name in ("delegate", "proxy_type", "delay")}


def _event(account: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "delegator": account,
        "delegatee": entry["delegate"],
        "proxy_type": entry["proxy_type"],
        "delay": entry["delay"],
    }


def _definitions(context: Context, account: str) -> list[dict[str, Any]]:
    found, _deposit = context.state.get("Proxy", "Proxies", account)
    return [dict(entry) for entry in found]


CALLS: dict[str, Handler] = {
    "proxy": proxy,
    "add_proxy": add_proxy,
    "remove_proxy": remove_proxy,
    "remove_proxies": remove_proxies,
}
