"""Processes of this host by pid: since when one runs, and signals to it or to its group.

Used by the process runtime. Invariant: a process is known by its pid and its start together, for a
pid is given anew; signalling one that has gone is no error.
"""

import contextlib
import os
import signal
from pathlib import Path


def started(pid: int) -> int | None:
    """Return when a process started, in ticks since boot; None where it is dead or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def send(pid: int, number: signal.Signals) -> None:
    """Signal one process."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def send_to_group(pid: int, number: signal.Signals) -> None:
    """Signal the group that a process leads."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
