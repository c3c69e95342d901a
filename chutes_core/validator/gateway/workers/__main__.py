"""`python -m chutes_core.validator.gateway.workers FD`: a worker on an inherited socket pair.

Started by `crew` alone; FD is the descriptor of its end.
"""

import socket
import sys

import uvloop

from chutes_core.base.latency import favour_latency
from chutes_core.validator.gateway.workers.worker import work


def main() -> int:
    """Run one worker."""
    favour_latency()
    return int(uvloop.run(work(socket.socket(fileno=int(sys.argv[1])))))


if __name__ == "__main__":
    sys.exit(main())
