"""Servers under test, each alone on its core: how they start, whose port it is, what they use.

CPU time and listener are those of a contender's whole family: the process that was started, and all
that descend from it. Path: gateway.py, gateway_peers.py, woken.py.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
CORES = os.cpu_count() or 1
CORE, ORIGIN_CORE, LOAD_CORE = 0, min(1, CORES - 1), min(2, CORES - 1)
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
BARE = ("bare", "sealed-bare")
ASKED = '{"input": "a sentence of ordinary length, as one embeds it"}'
_PARENT, _TIMES, _BORN = 1, (11, 12), 19  # of the fields of /proc/PID/stat behind the name
START_S = 120.0
STOP_S = 20.0
NGINX = """
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  keepalive_requests 100000000;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass
class Contender:
    """A server under test and what was measured of it, round by round.

    Attributes:
        asked: the body of a stream's request.
        whole, streamed: the paths of an ordinary call and of a stream, below ``path``.
    """

    name: str
    pid: int
    port: int
    path: str
    key: str
    whole: str = "/echo"
    streamed: str = "/stream"
    asked: str = ASKED
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def note(self, **figures: float) -> None:
        for name, value in figures.items():
            self.rounds.setdefault(name, []).append(value)

    def figures(self) -> dict[str, float]:
        made = {name: round(median(values), 3) for name, values in self.rounds.items()}
        return {**made, "cpu_least_us": round(min(self.rounds["cpu_us"]), 3)}

    def cpu_s(self) -> float:
        """Return the CPU time of the process and all that descend from it."""
        return sum(_cpu_s(pid) for pid in family(self.pid))

    def rest(self, resting: bool) -> None:
        """Stop all of its processes, or let them go on: what idles takes of others' core, too."""
        for pid in family(self.pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGSTOP if resting else signal.SIGCONT)

    def check_listener(self) -> None:
        """Refuse to measure somebody else's listener, where the kernel tells whose it is."""
        inode = _listening_inode(self.port)
        if inode == "0":
            print(f"{self.name}: this kernel does not tell whose port it is", file=sys.stderr)
            return
        for pid in family(self.pid):
            with contextlib.suppress(OSError):
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        if os.readlink(link) == f"socket:[{inode}]":
                            return
        raise RuntimeError(f"{self.name}: port {self.port} is not its own")


@contextlib.contextmanager
def child(core: int, *arguments: str) -> Iterator[tuple[int, list]]:
    """Run a child on one core; yields its pid and its line."""
    script = "bare.py" if arguments[0] in BARE else "gateway_servers.py"
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        assert process.stdout is not None
        yield process.pid, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def nginx(origin_port: int) -> Iterator[Contender]:
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        config = Path(directory, "nginx.conf")
        config.write_text(NGINX.format(dir=directory, origin=origin_port, port=port))
        os.chmod(directory, 0o755)
        with served(["nginx", "-c", str(config), "-p", directory], port) as process:
            yield Contender("nginx", process.pid, port, "", "none")


@contextlib.contextmanager
def served(
    command: list[str], port: int, *, log: Path | None = None, **options
) -> Iterator[subprocess.Popen]:
    """Run a server on the contender's core until it listens; it ends with all its descendants.

    Raises:
        RuntimeError: it ended, or did not listen in time; with what it said last.
    """
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("wb")) if log else subprocess.DEVNULL
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            preexec_fn=lambda: os.sched_setaffinity(0, {CORE}),
            **options,
        )
        stack.callback(_end, process)
        until = time.monotonic() + START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                said = log.read_text(errors="replace")[-800:] if log else ""
                raise RuntimeError(f"{command[0]} does not listen ({process.returncode}): {said}")
            time.sleep(0.05)
        yield process


def _end(process: subprocess.Popen) -> None:
    """Ask a server to end, and end what of its family is left by then."""
    members = {pid: _field(pid, _BORN) for pid in family(process.pid)}
    for pid in members:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGCONT)
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    for pid, born in members.items():
        with contextlib.suppress(OSError):
            if _field(pid, _BORN) == born:
                os.kill(pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """Return a port that nobody listens on just now; `check_listener` sees who took it."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            children[_field(int(entry.name), _PARENT)].append(int(entry.name))
    found = [pid]
    for member in found:
        found += children[member]
    return found


def _field(pid: int, number: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[number])


def _cpu_s(pid: int) -> float:
    """Return a process' CPU time: to the nanosecond where the kernel tells it, else in ticks."""
    try:
        spans = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        if spans:
            return sum(int(span.split()[0]) for span in spans) / 1e9
        return sum(_field(pid, number) for number in _TIMES) * TICK_S
    except OSError:
        return 0.0


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _listening_inode(port: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == port:
            return fields[9]
    raise RuntimeError(f"nobody listens on {port}")
