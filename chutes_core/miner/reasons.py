"""Why an instance ended, in the words of a `gone` event.

Pure. Invariants: every reason is a short snake_case code (`LaunchEvent.reason`); the sentence for a
person and the log tail go into the detail; of an error that nobody has foreseen, whose text may
name anything of this host, validators hear its kind alone, and the miner's own log holds the rest.
"""

import signal

from chutes_core.miner.runtime.base import Ended

MINER_ENDED = "miner_ended"
MINER_RESTARTED = "miner_restarted"
MINER_LOST = "miner_lost"
DEREGISTERED = "deregistered"
UNKNOWN_LAUNCH = "unknown_launch"
SHARE_RETURNED = "share_returned"
LEASE_LAPSED = "lease_lapsed"
GPU_UNHEALTHY = "gpu_unhealthy"
OUTDATED = "miner_outdated"
MINER_FAILED = "miner_failed"
CACHE_OVERRUN = "cache_overrun"

# Ends that say nothing against the chute on this node: it may be started again at once.
NO_FAULT = frozenset(
    {
        "attested",
        "scaled_down",
        "job_ended",
        "superseded",
        "chute_deleted",
        "validator_restarted",
        MINER_ENDED,
        MINER_RESTARTED,
        DEREGISTERED,
        SHARE_RETURNED,
        LEASE_LAPSED,
        GPU_UNHEALTHY,
        OUTDATED,
    }
)

# Ends at which a validator has told the instance to finish its calls and to exit by itself.
LEFT_IN_PEACE = frozenset(
    {
        "scaled_down",
        "job_ended",
        "superseded",
        "chute_deleted",
        "not_developer",
        LEASE_LAPSED,
        MINER_ENDED,
    }
)


def reason_of(ended: Ended) -> str:
    """Return the code for how an instance ended by itself.

    >>> reason_of(Ended(-9, "out_of_memory"))
    'out_of_memory'
    >>> reason_of(Ended(-9)), reason_of(Ended(0)), reason_of(Ended(3)), reason_of(Ended(None))
    ('killed_sigkill', 'instance_stopped', 'exit_3', 'instance_lost')
    """
    if ended.reason:
        return ended.reason
    if ended.exit_code is None:
        return "instance_lost"
    if ended.exit_code == 0:
        return "instance_stopped"
    if ended.exit_code < 0:
        return f"killed_{_signal_name(-ended.exit_code)}"
    return f"exit_{ended.exit_code}"


def unforeseen(error: BaseException) -> str:
    """Return what a validator is told of a bug of the miner's.

    >>> unforeseen(KeyError("/srv/miner/secret"))
    "KeyError in the miner; its operator finds more in the miner's log"
    """
    return f"{type(error).__name__} in the miner; its operator finds more in the miner's log"


def host_said(error: OSError) -> str:
    """Return what a validator is told of a refusal of the host's: no name of a file.

    >>> host_said(OSError(28, "No space left on device", "/srv/miner/store"))
    'No space left on device'
    """
    return error.strerror or type(error).__name__


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name.lower()
    except ValueError:
        return f"signal_{number}"
