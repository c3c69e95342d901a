"""Timestamp: the block's time, set once per block by its author. Invariant: it only grows."""

from chutes_core.devnet.dispatch import Call, Context, Handler, Origin


def set_now(context: Context, origin: Origin, call: Call) -> None:
    """Set the time of this block, milliseconds since the epoch."""
    origin.inherent()
    context.state.put("Timestamp", "Now", int(call.args["now"]))


CALLS: dict[str, Handler] = {"set": set_now}
