"""The gateway against nginx and FastAPI + aiohttp: same payload, same origin, one interleaved run.

The contender has one core (the first), origin and load the next two or, where there are only two,
the other; the figures of a contender are medians over the rounds, and of CPU time also the least,
which a busy machine disturbs least. CPU time is the contender's own processes', from /proc. The
gateway works with key, hold, sealing, journal and back-pressure on; the others pass bytes on:
`bare` and `sealed-bare` (bare.py) are the floor under it, Python without and with sealed frames.
nginx and wrk are found on the PATH (Debian: nginx-light, wrk); without nginx it is left out,
without wrk there is no run. Nothing is asserted: figures on a shared machine are for a person to
read, as ratios.

    python tests/bench/gateway.py [--json] [--rounds N] [--seconds S] [--only NAME ...] [--cpu]

--cpu asks for CPU time alone: one span of wrk for each contender and round, no streams.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httptools
import uvloop

HERE = Path(__file__).parent
CORES = os.cpu_count() or 1
CORE, ORIGIN_CORE, LOAD_CORE = 0, min(1, CORES - 1), min(2, CORES - 1)
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
CONNECTIONS = 32
STREAMS = 20
BARE = ("bare", "sealed-bare")
SERVERS = (*BARE, "gateway", "reference", "fastapi")
ASKED = '{"input": "a sentence of ordinary length, as one embeds it"}'
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
    """A server under test and what was measured of it, round by round."""

    name: str
    pid: int
    port: int
    path: str
    key: str
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def note(self, **figures: float) -> None:
        for name, value in figures.items():
            self.rounds.setdefault(name, []).append(value)

    def figures(self) -> dict[str, float]:
        made = {name: round(median(values), 3) for name, values in self.rounds.items()}
        return {**made, "cpu_least_us": round(min(self.rounds["cpu_us"]), 3)}

    def cpu_s(self) -> float:
        """Return the CPU time of the process, its threads and its children."""
        return sum(_cpu_s(pid) for pid in (self.pid, *_children(self.pid)))

    def check_listener(self) -> None:
        """Refuse to measure somebody else's listener, where the kernel tells whose it is."""
        inode = _listening_inode(self.port)
        if inode == "0":
            print(f"{self.name}: this kernel does not tell whose port it is", file=sys.stderr)
            return
        for pid in (self.pid, *_children(self.pid)):
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
        with socket.create_server(("127.0.0.1", 0)) as door:
            port = door.getsockname()[1]
        config = Path(directory, "nginx.conf")
        config.write_text(NGINX.format(dir=directory, origin=origin_port, port=port))
        os.chmod(directory, 0o755)
        process = subprocess.Popen(
            ["nginx", "-c", str(config), "-p", directory],
            preexec_fn=lambda: os.sched_setaffinity(0, {CORE}),
            stderr=subprocess.DEVNULL,
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.02)
            else:
                raise RuntimeError(f"nginx ended with {process.returncode}")
            yield Contender("nginx", process.pid, port, "", "none")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def load(contender: Contender, connections: int, seconds: float) -> dict[str, float]:
    """Run wrk; return requests/s, median and p99 in microseconds, CPU per request."""
    script = Path(tempfile.gettempdir()) / f"chutes-wrk-{os.getpid()}.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = [[{ASKED}]]\n'
        'wrk.headers["content-type"] = "application/json"\n'
        f'wrk.headers["authorization"] = "Bearer {contender.key}"\n'
    )
    url = f"http://127.0.0.1:{contender.port}{contender.path}/echo"
    before = contender.cpu_s()
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        "-s",
        str(script),
        url,
    ]
    try:
        out = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
        ).stdout
    finally:
        script.unlink()
    cpu_s = contender.cpu_s() - before
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"{contender.name}: {out}")
    requests = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
    per_s = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])  # type: ignore[index]
    return {
        "requests_per_s": per_s,
        "p50_us": _latency_us(out, "50"),
        "p99_us": _latency_us(out, "99"),
        "cpu_us": cpu_s / max(requests, 1) * 1e6,
    }


class Tokens(asyncio.Protocol):
    """Reads one stream of server-sent events; notes each token's age and how many came."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.ages_us: list[float] = []
        self.done = asyncio.get_running_loop().create_future()
        self.parser = httptools.HttpResponseParser(self)
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        now = time.monotonic_ns()
        *whole, self.tail = (self.tail + data).split(b"\n\n")
        self.ages_us += [(now - int(one[one.index(b't":') + 3 : -1])) / 1e3 for one in whole]

    def on_message_complete(self) -> None:
        self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError("a stream broke off"))


async def stream(contender: Contender, count: int, every_us: int) -> tuple[float, list[float]]:
    """Run STREAMS streams at once; return tokens/s and all tokens' ages in microseconds."""
    lines = [
        f"POST {contender.path}/stream HTTP/1.1",
        "host: bench",
        f"authorization: Bearer {contender.key}",
        "content-type: application/json",
        f"x-count: {count}",
        f"x-every-us: {every_us}",
        f"content-length: {len(ASKED)}",
    ]
    request = "\r\n".join([*lines, "", ASKED]).encode()
    loop = asyncio.get_running_loop()
    begun = time.monotonic()
    readers = []
    for _ in range(STREAMS):
        _, reader = await loop.create_connection(
            lambda: Tokens(request), "127.0.0.1", contender.port
        )
        readers.append(reader)
    await asyncio.gather(*(reader.done for reader in readers))
    took_s = time.monotonic() - begun
    for reader in readers:
        reader.transport.close()
    ages = sorted(age for reader in readers for age in reader.ages_us)
    assert len(ages) == STREAMS * count, f"{contender.name}: {len(ages)} tokens"
    return len(ages) / took_s, ages


def measure(contender: Contender, options: argparse.Namespace) -> None:
    """Run one round of one contender."""
    contender.check_listener()
    if options.cpu:
        contender.note(**load(contender, CONNECTIONS, options.seconds))
        return
    load(contender, CONNECTIONS, 1)  # warm
    contender.note(**load(contender, CONNECTIONS, options.seconds))
    alone = load(contender, 1, options.seconds)
    contender.note(alone_p50_us=alone["p50_us"])
    before = contender.cpu_s()
    per_s, ages = uvloop.run(stream(contender, 2000, 0))
    token_cpu_us = (contender.cpu_s() - before) / len(ages) * 1e6
    _, ages = uvloop.run(stream(contender, 50, 20_000))
    contender.note(tokens_per_s=per_s, token_cpu_us=token_cpu_us, token_p50_us=ages[len(ages) // 2])


def run(options: argparse.Namespace) -> dict[str, object]:
    os.sched_setaffinity(0, {LOAD_CORE})
    with contextlib.ExitStack() as stack:
        pid, place = stack.enter_context(child(ORIGIN_CORE, "origin"))
        direct = Contender("origin", pid, place[0], "", "none")
        contenders = [direct]
        if shutil.which("nginx") and "nginx" in options.only:
            contenders.append(stack.enter_context(nginx(place[0])))
        for kind in SERVERS:
            if kind in options.only:
                pid, said = stack.enter_context(child(CORE, kind, json.dumps(place)))
                contenders.append(Contender(kind, pid, *said))
        for number in range(options.rounds):
            for contender in contenders:
                print(f"round {number + 1}: {contender.name}", file=sys.stderr)
                measure(contender, options)
        return report(contenders, options)


def report(contenders: list[Contender], options: argparse.Namespace) -> dict[str, object]:
    """Return figures, and the gateway's ratios to each other contender."""
    figures = {one.name: one.figures() for one in contenders}
    for name, row in figures.items():
        if name != "origin" and "alone_p50_us" in row:
            row["added_us"] = round(row["alone_p50_us"] - figures["origin"]["alone_p50_us"], 1)
            added = row["token_p50_us"] - figures["origin"]["token_p50_us"]
            row["added_token_us"] = round(added, 1)
    ours = figures.get("gateway", {})
    ratios = {
        f"gateway/{name}": {key: round(ours[key] / row[key], 3) for key in ours if row.get(key)}
        for name, row in figures.items()
        if name != "gateway" and ours
    }
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "connections": CONNECTIONS,
        "streams": STREAMS,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "figures": figures,
        "ratios": ratios,
    }


def table(result: dict) -> str:
    """Return the figures as a Markdown table."""
    columns = (
        ("requests_per_s", "requests/s", 0),
        ("cpu_us", "CPU us/request", 1),
        ("cpu_least_us", "least", 1),
        ("p50_us", "p50 us", 0),
        ("p99_us", "p99 us", 0),
        ("added_us", "added us (1 conn.)", 0),
        ("tokens_per_s", "SSE chunks/s", 0),
        ("token_cpu_us", "CPU us/chunk", 2),
        ("added_token_us", "added us/token", 0),
    )
    lines = [
        "| | " + " | ".join(title for _, title, _ in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, row in result["figures"].items():
        cells = [f"{row[key]:,.{digits}f}" if key in row else "" for key, _, digits in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, ratios in result["ratios"].items():
        cells = [f"{ratios[key]:.2f}" if key in ratios else "" for key, _, _ in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cpu_s(pid: int) -> float:
    """Return a process' CPU time: to the nanosecond where the kernel tells it, else in ticks."""
    try:
        spans = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        if spans:
            return sum(int(span.split()[0]) for span in spans) / 1e9
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * TICK_S


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if path.exists():
        return [int(each) for each in path.read_text().split()]
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def _listening_inode(port: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == port:
            return fields[9]
    raise RuntimeError(f"nobody listens on {port}")


def _latency_us(out: str, percent: str) -> float:
    match = re.search(rf"\s{percent}%\s+([\d.]+)(us|ms|s)", out)
    assert match is not None, out
    return float(match[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[match[2]]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true")
    names = ("nginx", *SERVERS)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    return parser.parse_args()


if __name__ == "__main__":
    if not shutil.which("wrk"):
        sys.exit("wrk is not on the PATH (Debian: apt install wrk)")
    made = run(_options())
    print(json.dumps(made, indent=1) if _options().json else table(made))
