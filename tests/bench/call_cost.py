"""One ordinary call of the gateway in Python, without sockets, and what its surroundings cost.

Everything of the data plane is real (admission, hold, seal, journal on a disk) but the transports
and the loop: spans are short, and the least of many is what a busy machine disturbs least. Beside
it: a clock's read, a sealed frame, the journal's appends beside its syncing thread (of one record
and of 16, what they take to encode, in a file that grows and in room made ahead), and what the
cycle collector adds. Nothing is asserted.

    python tests/bench/call_cost.py [--calls N] [--rounds N] [--json]
"""

import argparse
import asyncio
import gc
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/protocol/gateway"), str(Path(__file__).parent)]

from gateway_servers import BODY, HEADERS  # noqa: E402
from gateway_stand_in import World  # noqa: E402

from chutes_core.base.ids import new_id  # noqa: E402
from chutes_core.validator.domain.snapshot import InstanceView  # noqa: E402
from chutes_core.validator.gateway.gateway import Gateway  # noqa: E402
from chutes_core.validator.gateway.journal import SEGMENT_BYTES, Journal  # noqa: E402
from chutes_core.validator.gateway.limits import GatewayLimits  # noqa: E402
from chutes_core.validator.gateway.plane.http import Connection  # noqa: E402
from chutes_core.validator.gateway.plane.link import Link  # noqa: E402
from chutes_core.validator.gateway.pool import Borrowed  # noqa: E402
from chutes_core.validator.gateway.records import encode_rest, opening  # noqa: E402
from chutes_core.validator.gateway.spare import Spare  # noqa: E402
from chutes_core.wire.frames import FrameCodec, FrameKind  # noqa: E402
from chutes_core.wire.sealing import PROVEN, ConnectionKeys, Preamble, Sealer  # noqa: E402

ASKED = '{"input": "a sentence of ordinary length, as one embeds it"}'
ANSWER = (
    (FrameKind.RESPONSE, json.dumps({"status": 200, "headers": HEADERS}).encode()),
    (FrameKind.BODY, BODY),
    (FrameKind.END, b'{"busy_us":1}'),
)
LIMITS = GatewayLimits(key_calls_per_s=10**6, key_burst=10**6, max_idle_per_instance=256)


class Transport(SimpleNamespace):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__(out=[])
        self.write = self.out.append

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        return ("127.0.0.1", 1)


@dataclass
class Stage:
    """A gateway with as many callers and connections to one instance as calls go on at once."""

    request: bytes = b""
    callers: list[tuple[Connection, Transport]] = field(default_factory=list)
    links: list[tuple[Link, Transport, FrameCodec]] = field(default_factory=list)
    due: list[Callable[[], None]] = field(default_factory=list)

    def turn(self) -> tuple[int, int, int]:
        """Make one call of each caller; return ns until all are sent, answered, ended."""
        sent = _ns(lambda: [caller.data_received(self.request) for caller, _ in self.callers])
        answers = [
            (link, codec.seal_together(*ANSWER)) for link, wire, codec in self.links if wire.out
        ]
        assert len(answers) == len(self.callers)
        answered = _ns(lambda: [link.data_received(answer) for link, answer in answers])
        due, self.due[:] = self.due[:], []
        ended = _ns(lambda: [act() for act in due])
        for _, transport in self.callers:
            assert len(transport.out) == 1
            transport.out.clear()
        for _, transport, _ in self.links:
            transport.out.clear()
        return sent, answered, ended


def _ns(act: Callable[[], object]) -> int:
    begun = time.perf_counter_ns()
    act()
    return time.perf_counter_ns() - begun


async def control(scope, receive, send) -> None:
    raise AssertionError("only invocations come here")


def stage(directory: str, calls: int) -> Stage:
    """Return a gateway whose connections are open."""
    world = World()
    user = world.user(spendable_rao=10**18)
    chute, key = world.chute(user), world.key(user)
    launch, root, ticket = new_id(), secrets.token_bytes(32), secrets.token_bytes(32)
    view = InstanceView(launch, chute.chute_id, "127.0.0.1", 1, ticket, root, 256)
    world.instances[chute.chute_id] = (view,)
    made = Gateway(control=control, journal=Journal(Path(directory), "bench"), limits=LIMITS)
    made.swap(world.snapshot())
    plane, one = made.plane(grace_s=0.0), Stage()
    plane.loop = SimpleNamespace(call_soon=one.due.append)  # type: ignore[assignment]
    plane.now = time.monotonic
    for _ in range(calls):
        preamble = Preamble.build(ticket=ticket, launch_id=launch, generation=PROVEN)
        link, wire, nonce = Link(root, preamble), Transport(), secrets.token_bytes(32)
        link.connection_made(wire)  # type: ignore[arg-type]
        link.data_received(nonce)
        keys = ConnectionKeys.derive(root, validator_nonce=preamble.nonce, instance_nonce=nonce)
        wire.out.clear()
        one.links.append((link, wire, FrameCodec.for_instance(keys)))
        made._pool.give_back(Borrowed(link, launch, reused=False))
        caller, transport = Connection(plane), Transport()
        caller.connection_made(transport)  # type: ignore[arg-type]
        one.callers.append((caller, transport))
    lines = (
        f"POST /c/{chute.slug}/api/echo HTTP/1.1",
        "host: bench",
        f"authorization: Bearer {key}",
        "content-type: application/json",
        f"content-length: {len(ASKED)}",
    )
    one.request = "\r\n".join((*lines, "", ASKED)).encode()
    return one


def least(one: Stage, rounds: int) -> list[float]:
    """Return the least microseconds a call of each part."""
    turns = [one.turn() for _ in range(rounds)]
    return [round(min(part) / len(one.callers) / 1e3, 2) for part in zip(*turns, strict=True)]


def encoded(records: int) -> bytes:
    """Return what an append of so many records writes."""
    start, rest = opening("bench"), b',"n":"%b"}' % (b"x" * 480)
    return b"".join([encode_rest(start, number, rest) for number in range(records)])


def each(act: Callable[[], object], times: int = 200, rounds: int = 100) -> float:
    """Return the least microseconds of one act."""
    spans = [_ns(lambda: [act() for _ in range(times)]) for _ in range(rounds)]
    return round(min(spans) / times / 1e3, 3)


class NoSpare(Spare):
    """Never there, as on a disk that is too slow."""

    def prepare(self) -> None:
        pass


def writes(directory: str, records: int, *, ahead: bool) -> dict[str, float]:
    """Return what appends of so many records take, in room made ahead or in a file that grows.

    ``all_cpu_us`` is the process's for each append, with the syncing thread and what it makes.
    """
    folder = Path(directory, f"{records}-{ahead}")
    folder.mkdir()
    spare = (Spare if ahead else NoSpare)(folder / "spare", SEGMENT_BYTES)
    journal = Journal(folder, "bench", spare=spare)
    rests, spans = [b',"n":"%b"}' % (b"x" * 480)] * records, []
    append, late = partial(journal.append_rests, rests), SEGMENT_BYTES // 2

    def appended() -> int:
        while ahead and journal._end > late and not spare.there:
            time.sleep(0.005)  # callers are not as fast as this loop
        return _ns(append)

    while journal.last_sequence * 500 < SEGMENT_BYTES:
        appended()  # the first segment grows
    cpu_ns = time.process_time_ns()
    for _ in range(30_000 // records):
        spans.append(appended())
    cpu_us = (time.process_time_ns() - cpu_ns) / len(spans) / 1e3
    spans.sort()
    journal.close()
    made = {
        "least_us": spans[0],
        "median_us": spans[len(spans) // 2],
        "p99_us": spans[len(spans) * 99 // 100],
        "mean_us": sum(spans) / len(spans),
    }
    return {name: round(ns / 1e3, 1) for name, ns in made.items()} | {
        "all_cpu_us": round(cpu_us, 1)
    }


async def main(options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as directory:
        one = stage(directory, options.calls)
        for _ in range(50):
            one.turn()
        gc.collect()
        gc.freeze()
        parts = least(one, options.rounds)
        gc.disable()
        calm = least(one, options.rounds)
        gc.enable()
        mean = _ns(lambda: [one.turn() for _ in range(1000)]) / 1000 / options.calls / 1e3
        sealer, plain = Sealer(secrets.token_bytes(32)), secrets.token_bytes(1300)
        return {
            "calls": options.calls,
            "sent_answered_ended_us": parts,
            "call_us": round(sum(parts), 2),
            "call_us_without_collector": round(sum(calm), 2),
            "turn_mean_us": round(mean, 2),
            "clock_us": each(time.monotonic_ns),
            "seal_us": each(lambda: sealer.framed(plain)),
            "encode_16_us": each(partial(encoded, 16), 10),
            "write_1_growing": writes(directory, 1, ahead=False),
            "write_1_ahead": writes(directory, 1, ahead=True),
            "write_16_growing": writes(directory, 16, ahead=False),
            "write_16_ahead": writes(directory, 16, ahead=True),
            "load_average": os.getloadavg()[0],
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=16, help="at once")
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measured = asyncio.run(main(arguments))
    if arguments.json:
        print(json.dumps(measured, indent=1))
    else:
        for name, value in measured.items():
            print(f"{name:>28}  {value}")
    sys.stdout.flush()
    os._exit(0)  # links and callers on no loop have nothing to close
