"""`python -m chutes_core.runner`: the entrance of an instance.

Reads ``CHUTES_RUNNER_*`` (see settings), then runs until its launch ends. Exit statuses stand in
`lifecycle.ExitCode`. Invariant: stdout carries the ready line and nothing else; file descriptor 1
then points at stderr, where the chute's own output and our log lines go.
"""

import logging
import os
import sys
from typing import TextIO

from chutes_core.base.clock import SystemClock
from chutes_core.base.errors import ChutesError
from chutes_core.runner.app import run
from chutes_core.runner.lifecycle import ExitCode
from chutes_core.runner.settings import RunnerSettings
from chutes_core.runner.standby import StandBy


def main() -> int:
    """Run the instance; the exit status."""
    ready = _claim_stdout()
    _configure_logs()
    try:
        stand_by = StandBy.taken_from(os.environ)
        if stand_by is None:
            RunnerSettings.load(os.environ)  # what is wrong is said before anything is started
        return run(SystemClock(), ready, stand_by=stand_by)
    except ChutesError as error:
        logging.getLogger("chutes_core.runner").error("%s", error)
        return ExitCode.BAD_SETTINGS


def _claim_stdout() -> TextIO:
    ready = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr] # a TextIOWrapper here
    return ready


def _configure_logs() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s runner: %(message)s"))
    log = logging.getLogger("chutes_core.runner")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


if __name__ == "__main__":
    sys.exit(main())
