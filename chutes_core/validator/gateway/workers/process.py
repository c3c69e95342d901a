"""A worker's process: how it is started, and what its end is called.

Invariant: it inherits one end of its socket pair and nothing else that is open.
"""

import asyncio
import os
import socket
import sys
from pathlib import Path

import chutes_core
from chutes_core.base.errors import ChutesError, Unavailable

_ROOT = Path(chutes_core.__file__).parents[1]
_MODULE = "chutes_core.validator.gateway.workers"


async def spawn(theirs: socket.socket) -> asyncio.subprocess.Process:
    """Start a worker at the other end of a socket pair.

    Raises:
        OSError: no process or descriptor is left.
    """
    fd = theirs.fileno()
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        _MODULE,
        str(fd),
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(fd,),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )


def died(name: str) -> ChutesError:
    """Return what is said of a worker that ended without saying why."""
    return Unavailable(
        "worker_died",
        f"gateway worker {name} ended",
        hint="it is started again; the log and the kernel's say why it ended",
    )
