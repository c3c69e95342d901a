"""Where a chute file runs: inside an instance, or with its developer.

Invariant: the answer is read at each call, from the one variable that the runner sets.
"""

from chutes_core.base.errors import Conflict, Invalid
from chutes_core.sdk.cord import in_runner

InvalidPath = Invalid
DuplicatePath = Conflict


def is_remote() -> bool:
    """Return whether this process runs a chute."""
    return in_runner()


def is_local() -> bool:
    """Return whether this process only declares or calls a chute."""
    return not in_runner()
