"""Sudo: the root key of the devnet (//Alice) dispatches a call as root.

Invariant: the outer call succeeds whenever the key is right; the inner result is in the event.
"""

from chutes_core.devnet.dispatch import (
    Call,
    Context,
    DispatchFailure,
    Handler,
    ModuleFailure,
    Origin,
)


def sudo(context: Context, origin: Origin, call: Call) -> None:
    """Dispatch the inner call as root and deposit its result."""
    if context.state.get("Sudo", "Key") != origin.signed():
        raise ModuleFailure("Sudo", "RequireSudo")
    result: object = {"Ok": None}
    try:
        context.dispatch(Origin(is_root=True), context.codec.nested_call(call.args["call"]))
    except DispatchFailure as failure:
        result = {"Err": failure.value(context.codec)}
    context.events.deposit("Sudo", "Sudid", {"sudo_result": result})


def set_key(context: Context, origin: Origin, call: Call) -> None:
    """Hand the root key on."""
    old = origin.signed()
    if context.state.get("Sudo", "Key") != old:
        raise ModuleFailure("Sudo", "RequireSudo")
    new = str(call.args["new"])
    context.state.put("Sudo", "Key", new)
    context.events.deposit("Sudo", "KeyChanged", {"old": old, "new": new})


CALLS: dict[str, Handler] = {"sudo": sudo, "sudo_unchecked_weight": sudo, "set_key": set_key}
