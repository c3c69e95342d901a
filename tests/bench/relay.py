"""What the relay adds to a call: one echo, dialled directly and through the relay, side by side.

One process is the instance (it echoes), one the relay as the neuron runs it (uvloop), one the same
relay on asyncio's own loop, and this one the caller on blocking sockets; direct and relayed round
trips alternate, so that all see the same machine. Then as many connections as asked are opened
through the first relay, and the round trips are taken again while they idle. Nothing is asserted:
the figures are for a person to read; the bounded version of this is
tests/protocol/miner/test_miner_relay.py.

    python tests/bench/relay.py [--rounds N] [--bytes N] [--connections N] [--json] [--out FILE]
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from chutes_core.miner.host import raise_open_files  # noqa: E402
from chutes_core.miner.relay import MAX_PER_LAUNCH, Relay  # noqa: E402
from chutes_core.wire.sealing import PREAMBLE_BYTES, PROVEN, Preamble  # noqa: E402

TICKET = b"t" * 32


def launch_id(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012d}"


class Echo(asyncio.Protocol):
    def __init__(self) -> None:
        self.left = PREAMBLE_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        skipped = min(self.left, len(data))
        self.left -= skipped
        if data[skipped:]:
            self.transport.write(data[skipped:])


def instance(pipe: Connection) -> None:
    raise_open_files()

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=4096)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def relay(pipe: Connection, port: int, launches: int, loop: str) -> None:
    raise_open_files()
    run = uvloop.run if loop == "uvloop" else asyncio.run

    async def serve() -> None:
        door = socket.create_server(("127.0.0.1", 0), backlog=4096)
        door.setblocking(False)
        running = Relay()
        await running.start(door)
        for number in range(launches):
            running.register(launch_id(number), ticket=TICKET, port=port)
        pipe.send(door.getsockname()[1])
        await asyncio.Event().wait()

    run(serve())


@contextmanager
def process(target, *arguments) -> Iterator[int]:
    here, there = multiprocessing.Pipe()
    running = multiprocessing.Process(target=target, args=(there, *arguments), daemon=True)
    running.start()
    try:
        yield here.recv()
    finally:
        running.terminate()
        running.join()


def dial(port: int, number: int = 0) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    hello = Preamble.build(ticket=TICKET, launch_id=launch_id(number), generation=PROVEN)
    link.sendall(hello.to_bytes())
    return link


def round_trip_us(link: socket.socket, payload: bytes) -> float:
    began = time.perf_counter_ns()
    link.sendall(payload)
    left = len(payload)
    while left:
        got = len(link.recv(left))
        if not got:
            raise ConnectionError("the relay has closed the connection")
        left -= got
    return (time.perf_counter_ns() - began) / 1000


def compare(links: dict[str, socket.socket], rounds: int, payload: bytes) -> dict:
    times: dict[str, list[float]] = {name: [] for name in links}
    for _ in range(rounds):
        for name, link in links.items():
            times[name].append(round_trip_us(link, payload))
    return {name: _figures(taken, times["direct"]) for name, taken in times.items()}


def _figures(taken: list[float], direct: list[float]) -> dict:
    median, base = statistics.median(taken), statistics.median(direct)
    return {
        "median_us": round(median, 1),
        "p99_us": round(sorted(taken)[int(len(taken) * 0.99)], 1),
        "added_round_trip_us": round(median - base, 1),
        "added_each_way_us": round((median - base) / 2, 1),
        "times_direct": round(median / base, 2),
    }


def machine() -> dict:
    return {
        "cpus": os.cpu_count(),
        "load_1_min": os.getloadavg()[0],
        "python": platform.python_version(),
        "uvloop": uvloop.__version__,
        "kernel": platform.release(),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--bytes", type=int, default=512)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    raise_open_files()
    launches = options.connections // MAX_PER_LAUNCH + 2
    payload = b"x" * options.bytes
    with (
        process(instance) as port,
        process(relay, port, launches, "uvloop") as door,
        process(relay, port, launches, "asyncio") as plain,
    ):
        links = {"direct": dial(port), "relay": dial(door), "relay_asyncio": dial(plain)}
        compare(links, 200, payload)  # warm
        found = {"machine": machine(), "bytes": options.bytes, "rounds": options.rounds}
        found["few"] = compare(links, options.rounds, payload)
        began = time.perf_counter()
        held = []
        for number in range(options.connections):
            held.append(dial(door, 1 + number // MAX_PER_LAUNCH))
            round_trip_us(held[-1], b"y")
        seconds = round(time.perf_counter() - began, 2)
        found["opened"] = {"connections": len(held), "seconds": seconds}
        found["many"] = compare(links, options.rounds, payload)
        for link in held:
            link.close()
    text = json.dumps(found, indent=None if options.json else 2)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
