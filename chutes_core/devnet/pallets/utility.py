"""Utility: several calls in one extrinsic.

Invariant: each item takes effect wholly or not at all; `batch` keeps what came before the first
failure, `batch_all` keeps nothing, `force_batch` goes on.
"""

from chutes_core.devnet.dispatch import Call, Context, DispatchFailure, Handler, Origin
from chutes_core.devnet.dispatch import ModuleFailure as Failure

MAX_CALLS = 1_000


def batch(context: Context, origin: Origin, call: Call) -> None:
    """Run calls in order; stop at the first failure, which is told by an event only."""
    for index, inner in enumerate(_inner(context, call)):
        try:
            context.dispatch(origin, inner)
        except DispatchFailure as failure:
            error = failure.value(context.codec)
            context.events.deposit("Utility", "BatchInterrupted", {"index": index, "error": error})
            return
        context.events.deposit("Utility", "ItemCompleted")
    context.events.deposit("Utility", "BatchCompleted")


def batch_all(context: Context, origin: Origin, call: Call) -> None:
    """Run calls in order; a failure undoes all of them."""
    for inner in _inner(context, call):
        context.dispatch(origin, inner)
        context.events.deposit("Utility", "ItemCompleted")
    context.events.deposit("Utility", "BatchCompleted")


def force_batch(context: Context, origin: Origin, call: Call) -> None:
    """Run all calls, whatever fails."""
    failed = False
    for inner in _inner(context, call):
        try:
            context.dispatch(origin, inner)
        except DispatchFailure as failure:
            failed = True
            error = failure.value(context.codec)
            context.events.deposit("Utility", "ItemFailed", {"error": error})
        else:
            context.events.deposit("Utility", "ItemCompleted")
    context.events.deposit("Utility", "BatchCompletedWithErrors" if failed else "BatchCompleted")


def _inner(context: Context, call: Call) -> list[Call]:
    if len(call.args["calls"]) > MAX_CALLS:
        raise Failure("Utility", "TooManyCalls")
    return [context.codec.nested_call(nested) for nested in call.args["calls"]]


CALLS: dict[str, Handler] = {"batch": batch, "batch_all": batch_all, "force_batch": force_batch}
