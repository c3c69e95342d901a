"""System: remarks. Invariant: a remark changes nothing but its event."""

from chutes_core.devnet.codec import blake2_256
from chutes_core.devnet.dispatch import Call, Context, Handler, Origin
from chutes_core.devnet.scale import Reader

_CALL_INDEX_BYTES = 2


def remark(_context: Context, origin: Origin, _call: Call) -> None:
    """Accept any bytes and do nothing."""
    origin.signed()


def remark_with_event(context: Context, origin: Origin, call: Call) -> None:
    """Accept any bytes and deposit their hash."""
    sender = origin.signed()
    text = Reader(call.data, _CALL_INDEX_BYTES).octets()
    context.events.deposit(
        "System", "Remarked", {"sender": sender, "hash": "0x" + blake2_256(text).hex()}
    )


CALLS: dict[str, Handler] = {"remark": remark, "remark_with_event": remark_with_event}
