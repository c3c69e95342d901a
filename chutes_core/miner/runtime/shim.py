"""The small parent of one instance: it outlives the miner, bounds the log, keeps the exit code.

Run as a file by the miner's interpreter (standard library only), in a session of its own, with one
argument: the instance's directory, which holds `command.json`. It writes `pid.json` before the
child starts, copies the child's output into `log.txt` (rotated once to `log.1.txt`), and writes
`exit.json` at the end. SIGTERM is passed on; the miner's SIGKILL to the process
group, ends everything; when the child has ended, the shim kills what is left of its group, itself
included. Invariant: whenever the child runs, `pid.json` names this process.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import IO

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MAX_LOG_BYTES = 4 * 1024 * 1024
_LAST_OUTPUT_S = 1.0
_MAX_OPEN_FILES = 8192
_MAX_PROCESSES = 8192


def main(directory: Path) -> int:
    """Run the command of an instance directory until it ends, then end the whole group."""
    os.chdir(directory)  # the directory of a stand-by is renamed when it is handed over
    directory = Path()
    order = json.loads((directory / "command.json").read_text())
    _write(directory / "pid.json", {"pid": os.getpid(), "started": _started(os.getpid())})
    child = subprocess.Popen(
        order["command"],
        env=order["env"],
        cwd=order["cwd"],
        stdin=None if order.get("stand_by") else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=_limit,  # safe here: this process has a single thread until the child runs
    )

    def pass_on(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    assert child.stdout is not None
    copier = threading.Thread(target=_copy, args=(child.stdout, directory), daemon=True)
    copier.start()
    exit_code = child.wait()
    copier.join(_LAST_OUTPUT_S)  # a grandchild may keep the pipe open: it ends with the group
    _write(directory / "exit.json", {"exit_code": exit_code})
    os.killpg(0, signal.SIGKILL)
    return 0  # not reached: this process is in the group


def _copy(source: IO[bytes], directory: Path) -> None:
    log = directory / "log.txt"
    out = log.open("ab", buffering=0)
    descriptor = source.fileno()
    while chunk := os.read(descriptor, 64 * 1024):
        try:
            out.write(chunk)
            if out.tell() > _MAX_LOG_BYTES:
                out.close()
                log.replace(directory / "log.1.txt")
                out = log.open("ab", buffering=0)
        except OSError:
            continue  # a full disk loses log lines, never the instance
    out.close()


def _limit() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for kind, wanted in (
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_NPROC, _MAX_PROCESSES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (limit, limit))


def _started(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot (field 22 of its stat)."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[19])


def _write(path: Path, value: object) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
